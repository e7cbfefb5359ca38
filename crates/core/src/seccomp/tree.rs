//! The program: architecture first, then a binary search over the numbers.
//!
//! When a filter is loaded the kernel runs it once for each number of the native and the compat ABI, to learn which are
//! allowed whatever their arguments (kernel/seccomp.c, `seccomp_cache_prepare`, 5.11). From then on only the others run
//! it. So the tree is built for that walk: every number counts the same, a span of equal numbers as much as it is long,
//! and the tree is the one with the fewest steps over all of them.

use super::bpf::{Assembler, Jump, Label};
use super::profile::{Checked, Outcome, RET_ENOSYS, RET_KILL_PROCESS, Table, permissive};
use super::syscalls::{Abi, X32_BIT};

/// How far the kernel counts: no table of it has more numbers.
const WALKED: u32 = 512;

/// How many single numbers one leaf may pick out of its span by comparing with each, so that the span need not be two.
/// Every instruction costs the load about as much as 40 steps (kernel 6.18: 0.13 us to check, convert and compile it); of
/// 0 to 9 the default profile loads fastest with 4: 68 us, with 0 91, with 9 77.
const PICKED: usize = 4;

pub(super) fn assemble(checked: &Checked) -> Assembler {
    let mut assembler = Assembler::default();
    // The last placed is the nearest to the head: the native ABI.
    let mut blocks: Vec<(u32, Label)> = Vec::new();
    for table in checked.tables.iter().rev().filter(|table| table.abi != Abi::X32) {
        let apart = (table.abi == Abi::X86_64).then(|| x32(&mut assembler, checked));
        let last = if apart.is_some() { X32_BIT - 1 } else { u32::MAX };
        let mut leaves = leaves(&spans(table, checked.default, 0, last), 0);
        if let Some(label) = apart {
            leaves.push(Leaf { first: X32_BIT, weight: 1, body: Body::Placed(label), picked: Vec::new() });
        }
        let tree = search(&mut assembler, &leaves);
        blocks.push((table.abi.audit(), assembler.load_number(tree)));
    }
    let mut next = assembler.ret(RET_KILL_PROCESS);
    for (audit, block) in blocks {
        next = assembler.jump(Jump::Equal, audit, block, next);
    }
    assembler.load_arch(next);
    assembler
}

/// Numbers with bit 30 never reach the table of x86-64: the same call has other numbers there. Where the profile does
/// not list x32 they get the default, and a default that would let them through ends the process, as it does for any ABI
/// that is not listed.
fn x32(assembler: &mut Assembler, checked: &Checked) -> Label {
    match checked.table(Abi::X32) {
        Some(table) => {
            let leaves = leaves(&spans(table, checked.default, X32_BIT, u32::MAX), X32_BIT);
            search(assembler, &leaves)
        }
        None => assembler.ret(unlisted_x32(checked.default)),
    }
}

pub(super) fn unlisted_x32(default: u32) -> u32 {
    if permissive(default) { RET_KILL_PROCESS } else { default }
}

/// Numbers with one outcome, inclusive.
struct Span {
    first: u32,
    last: u32,
    outcome: Outcome,
}

/// The whole domain, in order, without a gap, neighbours differ.
fn spans(table: &Table, default: u32, first: u32, last: u32) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut put = |first: u32, last: u32, outcome: Outcome| match spans.last_mut() {
        Some(span) if span.outcome == outcome => span.last = last,
        _ => spans.push(Span { first, last, outcome }),
    };
    let mut next = Some(first);
    // The unknown block begins behind the last named number, but for those of the block apart, which lie behind it.
    let unknown = table.unknown.map(|(from, to)| (from, to, Outcome::Ret(RET_ENOSYS)));
    let split = table.calls.partition_point(|call| unknown.as_ref().is_none_or(|block| call.0 < block.0));
    let (before, behind) = table.calls.split_at(split);
    let call = |(number, outcome): &(u32, Outcome)| (*number, *number, outcome.clone());
    for (from, to, outcome) in before.iter().map(call).chain(unknown).chain(behind.iter().map(call)) {
        if let Some(at) = next.filter(|at| *at < from) {
            put(at, from - 1, Outcome::Ret(default));
        }
        put(from, to, outcome);
        next = to.checked_add(1);
    }
    if let Some(at) = next.filter(|at| *at <= last) {
        put(at, last, Outcome::Ret(default));
    }
    spans
}

enum Body {
    Outcome(Outcome),
    Placed(Label),
}

/// A place where the search ends: everything from `first` on has the body, but for what is picked out.
struct Leaf {
    first: u32,
    weight: u32,
    body: Body,
    picked: Vec<(u32, Outcome)>,
}

fn leaves(spans: &[Span], base: u32) -> Vec<Leaf> {
    let walked =
        |first: u32, last: u32| (last - base).min(WALKED).saturating_sub(first - base).saturating_add(1);
    let mut leaves = Vec::new();
    let mut at = 0;
    while let Some(span) = spans.get(at) {
        let mut picked = Vec::new();
        let mut end = at;
        // As long as the outcome comes again behind at most so many single numbers.
        while let Some(again) = spans[end + 1..]
            .iter()
            .take(PICKED - picked.len() + 1)
            .position(|later| later.outcome == span.outcome)
            .filter(|between| spans[end + 1..=end + between].iter().all(|single| single.first == single.last))
        {
            picked.extend(
                spans[end + 1..=end + again].iter().map(|single| (single.first, single.outcome.clone())),
            );
            end += again + 1;
        }
        leaves.push(Leaf {
            first: span.first,
            weight: walked(span.first, spans[end].last).max(1),
            body: Body::Outcome(span.outcome.clone()),
            picked,
        });
        at = end + 1;
    }
    leaves
}

fn search(assembler: &mut Assembler, leaves: &[Leaf]) -> Label {
    let splits = Splits::best(leaves);
    place(assembler, leaves, &splits, 0, leaves.len() - 1)
}

fn place(assembler: &mut Assembler, leaves: &[Leaf], splits: &Splits, from: usize, to: usize) -> Label {
    if from == to {
        return leaf(assembler, &leaves[from]);
    }
    let split = splits.at(from, to);
    let right = place(assembler, leaves, splits, split + 1, to);
    let left = place(assembler, leaves, splits, from, split);
    assembler.jump(Jump::GreaterEqual, leaves[split + 1].first, right, left)
}

fn leaf(assembler: &mut Assembler, leaf: &Leaf) -> Label {
    let mut next = match &leaf.body {
        Body::Outcome(outcome) => assembler.outcome(outcome),
        Body::Placed(label) => *label,
    };
    for (number, outcome) in &leaf.picked {
        let target = assembler.outcome(outcome);
        next = assembler.jump(Jump::Equal, *number, target, next);
    }
    next
}

/// For each run of leaves the last leaf of its left half: the alphabetic tree with the least weighted depth, by Knuth's
/// dynamic program (Optimum binary search trees, 1971), quadratic in the leaves.
struct Splits {
    leaves: usize,
    split: Vec<u32>,
}

impl Splits {
    fn best(leaves: &[Leaf]) -> Self {
        let count = leaves.len();
        let mut sums = vec![0_u64; count + 1];
        for (index, leaf) in leaves.iter().enumerate() {
            sums[index + 1] = sums[index] + u64::from(leaf.weight);
        }
        let mut cost = vec![0_u64; count * count];
        let mut split: Vec<u32> = vec![0; count * count];
        for index in 0..count {
            split[index * count + index] = u32::try_from(index).unwrap_or(u32::MAX);
        }
        for length in 1..count {
            for from in 0..count - length {
                let to = from + length;
                let low = split[from * count + to - 1] as usize;
                let high = (split[(from + 1) * count + to] as usize).min(to - 1);
                let (least, best) = (low..=high)
                    .map(|middle| (cost[from * count + middle] + cost[(middle + 1) * count + to], middle))
                    .min()
                    .unwrap_or((0, from));
                cost[from * count + to] = least + sums[to + 1] - sums[from];
                split[from * count + to] = u32::try_from(best).unwrap_or(u32::MAX);
            }
        }
        Self { leaves: count, split }
    }

    fn at(&self, from: usize, to: usize) -> usize {
        self.split[from * self.leaves + to] as usize
    }
}
