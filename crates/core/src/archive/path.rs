//! The name of an entry, split once into components that no system call can misread.

use std::ffi::CStr;

/// Components of a name deeper than this are refused: each costs an open descriptor during the walk.
pub(super) const MOST_COMPONENTS: usize = 256;

const LONGEST_NAME: usize = 4096;
const LONGEST_COMPONENT: usize = 255;

/// A relative path without `.`, `..` and empty components. The empty path is the layer's root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path {
    /// Each component with a NUL behind it.
    bytes: Vec<u8>,
    /// Where each component ends, behind its NUL.
    ends: Vec<usize>,
}

impl Path {
    /// Splits a name. Leading slashes are dropped: every name is meant below the root, as every other unpacker of
    /// layers reads it.
    ///
    /// # Errors
    /// The reason, for an empty name, `..`, a NUL, a component or a name that is too long, a path that is too deep.
    pub fn parse(name: &[u8]) -> Result<Self, &'static str> {
        if name.is_empty() {
            return Err("the name is empty");
        }
        if name.len() > LONGEST_NAME {
            return Err("the name is longer than 4096 bytes");
        }
        if name.contains(&0) {
            return Err("there is a NUL in the name");
        }
        let mut path = Self { bytes: Vec::with_capacity(name.len() + 1), ends: Vec::with_capacity(8) };
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err("there is a .. in the name"),
                _ if component.len() > LONGEST_COMPONENT => {
                    return Err("a component of the name is longer than 255 bytes");
                }
                _ => {}
            }
            if path.ends.len() == MOST_COMPONENTS {
                return Err("the name has more than 256 components");
            }
            path.bytes.extend_from_slice(component);
            path.bytes.push(0);
            path.ends.push(path.bytes.len());
        }
        Ok(path)
    }

    /// The directories above, and the last component. Nothing for the root.
    pub fn split(&self) -> Option<(impl ExactSizeIterator<Item = &CStr>, &CStr)> {
        let last = self.ends.len().checked_sub(1)?;
        Some(((0..last).map(|index| self.component(index)), self.component(last)))
    }

    /// All components, from the root on.
    pub fn components(&self) -> impl ExactSizeIterator<Item = &CStr> {
        (0..self.ends.len()).map(|index| self.component(index))
    }

    /// Whether it is `other`, or below it.
    pub fn is_below(&self, other: &Self) -> bool {
        self.bytes.starts_with(&other.bytes)
    }

    /// Bytes of memory that it takes, about.
    pub fn cost(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + size_of_val(&self.ends[..])
    }

    /// Its text, with slashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.pop();
        bytes.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'/');
        bytes
    }

    /// The first `length` components.
    pub fn prefix(&self, length: usize) -> Self {
        let ends = self.ends[..length].to_vec();
        Self { bytes: self.bytes[..ends.last().copied().unwrap_or(0)].to_vec(), ends }
    }

    fn component(&self, index: usize) -> &CStr {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        // `parse` put exactly one NUL into each component, at its end.
        CStr::from_bytes_with_nul(&self.bytes[start..self.ends[index]]).unwrap_or_default()
    }
}

/// What a name of the layer format means, OCI image spec, layer.md "Whiteouts".
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An ordinary name.
    Plain,
    /// `.wh.<name>`: the lower layers' entry of this name is gone.
    Whiteout(Vec<u8>),
    /// `.wh..wh..opq`: all that the lower layers have in this directory is gone.
    Opaque,
    /// `.wh..wh.*`: notes of the aufs driver, or something below one.
    Ignored,
}

impl Path {
    /// Reads the prefix `.wh.`.
    ///
    /// # Errors
    /// The reason, where what follows the prefix is no name, or where the prefix is on a directory of the path.
    pub fn meaning(&self) -> Result<Meaning, &'static str> {
        const PREFIX: &[u8] = b".wh.";
        const NOTE: &[u8] = b".wh..wh.";
        let Some((parents, last)) = self.split() else { return Ok(Meaning::Plain) };
        let mut parents = parents.map(CStr::to_bytes);
        if let Some(parent) = parents.find(|parent| parent.starts_with(PREFIX)) {
            let ignored = parent.starts_with(NOTE);
            return if ignored { Ok(Meaning::Ignored) } else { Err("a directory of the name is a whiteout") };
        }
        let last = last.to_bytes();
        match last.strip_prefix(PREFIX) {
            None => Ok(Meaning::Plain),
            Some(_) if last == b".wh..wh..opq" => Ok(Meaning::Opaque),
            Some(_) if last.starts_with(NOTE) => Ok(Meaning::Ignored),
            Some(b"" | b"." | b"..") => Err("the whiteout names nothing"),
            Some(name) => Ok(Meaning::Whiteout(name.to_vec())),
        }
    }
}
