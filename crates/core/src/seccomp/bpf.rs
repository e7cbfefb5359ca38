//! Classic BPF as seccomp takes it (linux/filter.h): an assembler that writes from the end to the start, so that every
//! jump goes to something already placed, and an interpreter.

use std::collections::HashMap;

use super::profile::{Condition, Outcome, Rule, Test};

/// `BPF_MAXINSNS`: the kernel takes no longer program.
pub const MAX_INSTRUCTIONS: usize = 4096;
/// Bytes of a `sock_filter`: u16 code, u8 jt, u8 jf, u32 k.
pub const INSTRUCTION: usize = 8;

const LD_W_ABS: u16 = 0x20;
const ALU_AND_K: u16 = 0x54;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JGT_K: u16 = 0x25;
const JMP_JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;

/// Offsets in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// A place in the program, counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// The two jumps that the tree needs.
#[derive(Clone, Copy)]
pub(super) enum Jump {
    Equal,
    GreaterEqual,
}

/// Writes a program backwards.
#[derive(Default)]
pub(super) struct Assembler {
    /// Last instruction first.
    code: Vec<Instruction>,
    rets: HashMap<u32, Label>,
    chains: HashMap<Outcome, Label>,
}

/// A jump has 8 bits; two more instructions may come between a check of the distance and the jump.
const REACH: usize = 250;

impl Assembler {
    fn push(&mut self, code: u16, k: u32) -> Label {
        self.code.push(Instruction { code, jt: 0, jf: 0, k });
        Label(self.code.len() - 1)
    }

    fn distance(&self, to: Label) -> usize {
        self.code.len() - to.0 - 1
    }

    /// The label itself if a conditional jump gets there, else something that does. A return is put down again (a jump
    /// to it would be one more step for the kernel), anything else gets a long jump.
    fn near(&mut self, to: Label) -> Label {
        let distance = self.distance(to);
        if distance <= REACH {
            return to;
        }
        let target = self.code[to.0];
        if target.code == RET_K {
            return self.ret(target.k);
        }
        self.push(JMP_JA, u32::try_from(distance).unwrap_or(u32::MAX))
    }

    /// A return in reach.
    pub(super) fn ret(&mut self, word: u32) -> Label {
        match self.rets.get(&word) {
            Some(label) if self.distance(*label) <= REACH => *label,
            _ => {
                let label = self.push(RET_K, word);
                self.rets.insert(word, label);
                label
            }
        }
    }

    /// A conditional jump.
    pub(super) fn jump(&mut self, jump: Jump, k: u32, then: Label, otherwise: Label) -> Label {
        let code = match jump {
            Jump::Equal => JMP_JEQ_K,
            Jump::GreaterEqual => JMP_JGE_K,
        };
        self.branch(code, k, then, otherwise)
    }

    fn branch(&mut self, code: u16, k: u32, then: Label, otherwise: Label) -> Label {
        let then = self.near(then);
        let otherwise = self.near(otherwise);
        let jt = u8::try_from(self.distance(then)).unwrap_or(u8::MAX);
        let jf = u8::try_from(self.distance(otherwise)).unwrap_or(u8::MAX);
        self.code.push(Instruction { code, jt, jf, k });
        Label(self.code.len() - 1)
    }

    /// Goes on at `next`, which need not be what was placed last.
    fn before(&mut self, next: Label) {
        let distance = self.distance(next);
        if distance > 0 {
            self.push(JMP_JA, u32::try_from(distance).unwrap_or(u32::MAX));
        }
    }

    /// Loads the number and goes on at `next`.
    pub(super) fn load_number(&mut self, next: Label) -> Label {
        self.before(next);
        self.push(LD_W_ABS, NUMBER)
    }

    /// Loads the architecture and goes on at `next`.
    pub(super) fn load_arch(&mut self, next: Label) -> Label {
        self.before(next);
        self.push(LD_W_ABS, ARCH)
    }

    /// What decides by arguments, or the return.
    pub(super) fn outcome(&mut self, outcome: &Outcome) -> Label {
        let (rules, last) = match outcome {
            Outcome::Ret(word) => return self.ret(*word),
            Outcome::ByArguments(rules, last) => (rules, *last),
        };
        if let Some(label) = self.chains.get(outcome) {
            return *label;
        }
        let mut next = self.ret(last);
        let mut rest = rules.as_slice();
        while let Some(rule) = rest.last() {
            let alike = rest.iter().rev().take_while(|other| same_list(rule, other)).count();
            let (before, list) = rest.split_at(rest.len() - alike.max(1));
            next = if alike > 1 { self.list(list, next) } else { self.rule(rule, next) };
            rest = before;
        }
        self.chains.insert(outcome.clone(), next);
        next
    }

    /// Rules that each compare one argument with a value of the same upper half: profiles list families, personalities
    /// and requests so. The halves are loaded once.
    fn list(&mut self, rules: &[Rule], otherwise: Label) -> Label {
        let mut next = otherwise;
        let mut place = None;
        for (rule, (index, value)) in rules.iter().rev().filter_map(|rule| Some((rule, equals(rule)?))) {
            let then = self.ret(rule.ret);
            next = self.branch(JMP_JEQ_K, half(value), then, next);
            place = Some((index, value));
        }
        let Some((index, value)) = place else { return otherwise };
        let (low, high) = halves(index);
        let lower = self.load(low);
        self.branch(JMP_JEQ_K, half(value >> 32), lower, otherwise);
        self.load(high)
    }

    fn rule(&mut self, rule: &Rule, otherwise: Label) -> Label {
        let mut next = self.ret(rule.ret);
        for condition in rule.conditions.iter().rev() {
            next = self.condition(*condition, next, otherwise);
        }
        next
    }

    fn condition(&mut self, condition: Condition, then: Label, otherwise: Label) -> Label {
        let (low, high) = halves(condition.index);
        match condition.test {
            Test::Equal(value) => self.equal(low, high, u64::MAX, value, then, otherwise),
            Test::NotEqual(value) => self.equal(low, high, u64::MAX, value, otherwise, then),
            Test::Masked { mask, value } => self.equal(low, high, mask, value, then, otherwise),
            Test::Greater(value) => self.above(JMP_JGT_K, low, high, value, then, otherwise),
            Test::GreaterEqual(value) => self.above(JMP_JGE_K, low, high, value, then, otherwise),
            Test::LessEqual(value) => self.above(JMP_JGT_K, low, high, value, otherwise, then),
            Test::Less(value) => self.above(JMP_JGE_K, low, high, value, otherwise, then),
        }
    }

    fn equal(&mut self, low: u32, high: u32, mask: u64, value: u64, then: Label, otherwise: Label) -> Label {
        let mut next = self.half(low, half(mask), half(value), then, otherwise);
        // A half without a bit to look at always matches.
        if mask >> 32 != 0 || value >> 32 != 0 {
            next = self.half(high, half(mask >> 32), half(value >> 32), next, otherwise);
        }
        next
    }

    fn half(&mut self, offset: u32, mask: u32, value: u32, then: Label, otherwise: Label) -> Label {
        self.branch(JMP_JEQ_K, value, then, otherwise);
        if mask != u32::MAX {
            self.push(ALU_AND_K, mask);
        }
        self.load(offset)
    }

    fn above(&mut self, code: u16, low: u32, high: u32, value: u64, then: Label, otherwise: Label) -> Label {
        let top = half(value >> 32);
        self.branch(code, half(value), then, otherwise);
        let lower = self.load(low);
        let same = self.branch(JMP_JEQ_K, top, lower, otherwise);
        self.branch(JMP_JGT_K, top, then, same);
        self.load(high)
    }

    /// Loads a word and goes on at what was placed last.
    fn load(&mut self, offset: u32) -> Label {
        self.push(LD_W_ABS, offset)
    }

    /// Instructions so far.
    pub(super) fn len(&self) -> usize {
        self.code.len()
    }

    /// The program, first instruction first, as an array of `sock_filter` in this machine's byte order.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.code.len() * INSTRUCTION);
        for instruction in self.code.iter().rev() {
            bytes.extend_from_slice(&instruction.code.to_ne_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_ne_bytes());
        }
        bytes
    }
}

/// The argument and the value of a rule that only asks whether they are equal.
fn equals(rule: &Rule) -> Option<(u32, u64)> {
    match rule.conditions.as_slice() {
        [Condition { index, test: Test::Equal(value) }] => Some((*index, *value)),
        _ => None,
    }
}

fn same_list(one: &Rule, other: &Rule) -> bool {
    matches!((equals(one), equals(other)), (Some(one), Some(other)) if one.0 == other.0 && one.1 >> 32 == other.1 >> 32)
}

/// Offsets of the halves of an argument.
fn halves(index: u32) -> (u32, u32) {
    let low = ARGUMENTS + index * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };
    (low, low ^ 4)
}

fn half(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// What the kernel shows a filter (linux/seccomp.h, `struct seccomp_data`), but for the instruction pointer.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// The call's number.
    pub number: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The six arguments; none: any, so that every way is taken.
    pub arguments: Option<[u64; 6]>,
}

/// The end of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// `SECCOMP_RET_*` with its data.
    pub word: u32,
    /// Instructions carried out.
    pub steps: usize,
    /// Whether no argument was looked at: the kernel then remembers an allowed number and runs no filter for it (5.11).
    pub constant: bool,
}

/// Runs a program. Gives one end, or with unknown arguments one for each way through; none if the program is not one
/// that [`super::compile`] writes.
#[must_use]
pub fn run(program: &[u8], data: &Data) -> Option<Vec<End>> {
    let mut ends = Vec::new();
    // (place, accumulator, steps, constant)
    let mut open = vec![(0_usize, Some(0_u32), 0_usize, true)];
    let mut seen = std::collections::HashSet::new();
    while let Some((mut place, mut accumulator, mut steps, mut constant)) = open.pop() {
        loop {
            let Instruction { code, jt, jf, k } = fetch(program, place)?;
            place += 1;
            steps += 1;
            match code {
                LD_W_ABS => {
                    accumulator = load(data, k)?;
                    constant &= k < ARGUMENTS;
                }
                ALU_AND_K => accumulator = accumulator.map(|value| value & k),
                JMP_JA => place += k as usize,
                JMP_JEQ_K | JMP_JGT_K | JMP_JGE_K => {
                    let truth = accumulator.map(|value| match code {
                        JMP_JEQ_K => value == k,
                        JMP_JGT_K => value > k,
                        _ => value >= k,
                    });
                    if truth.is_none() && seen.insert(place) {
                        open.push((place + usize::from(jf), accumulator, steps, constant));
                    } else if truth.is_none() {
                        break;
                    }
                    place += usize::from(if truth == Some(false) { jf } else { jt });
                }
                RET_K => {
                    ends.push(End { word: k, steps, constant });
                    break;
                }
                _ => return None,
            }
        }
    }
    Some(ends)
}

fn fetch(program: &[u8], place: usize) -> Option<Instruction> {
    let bytes = program.get(place.checked_mul(INSTRUCTION)?..)?.first_chunk::<INSTRUCTION>()?;
    let [c0, c1, jt, jf, k0, k1, k2, k3] = *bytes;
    let (code, k) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes([k0, k1, k2, k3]));
    Some(Instruction { code, jt, jf, k })
}

/// The outer none: no such word. The inner: any value.
fn load(data: &Data, offset: u32) -> Option<Option<u32>> {
    match offset {
        NUMBER => Some(Some(data.number)),
        ARCH => Some(Some(data.arch)),
        ARGUMENTS..64 if offset.is_multiple_of(4) => {
            let Some(arguments) = data.arguments else { return Some(None) };
            let argument = arguments[((offset - ARGUMENTS) / 8) as usize];
            let upper = (offset % 8 == 4) != cfg!(target_endian = "big");
            Some(Some(half(if upper { argument >> 32 } else { argument })))
        }
        _ => None,
    }
}
