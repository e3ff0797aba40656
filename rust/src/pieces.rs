//! Which bytes each token adds to decoded text, as one table that the C side reads directly.

/// Flags of a token; the values of `SHOAL_PIECE_*`.
pub const SPECIAL: u8 = 1;
pub const ADDED: u8 = 2;

#[derive(Default)]
pub struct Pieces {
    pub blob: Vec<u8>,
    pub offsets: Vec<u64>,
    pub flags: Vec<u8>,
    /// One space at the very start of decoded text is not part of it.
    pub strip_leading: bool,
}

impl Pieces {
    pub fn with_capacity(n: usize) -> Pieces {
        let mut offsets = Vec::with_capacity(n + 1);
        offsets.push(0);
        Pieces { blob: Vec::new(), offsets, flags: Vec::with_capacity(n), strip_leading: false }
    }

    pub fn push(&mut self, bytes: &[u8], flags: u8) {
        self.blob.extend_from_slice(bytes);
        self.offsets.push(self.blob.len() as u64);
        self.flags.push(flags);
    }

    pub fn len(&self) -> usize {
        self.flags.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    pub fn get(&self, id: usize) -> &[u8] {
        &self.blob[self.offsets[id] as usize..self.offsets[id + 1] as usize]
    }
}

/// The GPT-2 byte alphabet: printable bytes stand for themselves, the others for the characters
/// from U+0100 on, in order.
pub fn byte_of_char(c: char) -> Option<u8> {
    let code = c as u32;
    if is_printable(code) {
        return Some(code as u8);
    }
    let nth = code.checked_sub(0x100)?;
    (0..=255u32).filter(|b| !is_printable(*b)).nth(nth as usize).map(|b| b as u8)
}

fn is_printable(code: u32) -> bool {
    matches!(code, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// A token written in the byte alphabet, as bytes. Text with any other character stands for
/// itself, as in the Hugging Face decoder.
pub fn bytes_of_byte_level(text: &str, table: &[Option<u8>]) -> Vec<u8> {
    let bytes: Option<Vec<u8>> =
        text.chars().map(|c| table.get(c as usize).copied().flatten()).collect();
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}

/// `byte_of_char` of the first 512 characters, which are all that there are.
pub fn byte_level_table() -> Vec<Option<u8>> {
    (0..512u32).map(|c| char::from_u32(c).and_then(byte_of_char)).collect()
}

/// The byte that "<0x41>" names.
pub fn byte_of_name(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        u8::from_str_radix(hex, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_alphabet_is_a_bijection() {
        let table = byte_level_table();
        let mut seen = [0; 256];
        for b in table.iter().flatten() {
            seen[*b as usize] += 1;
        }
        assert!(seen.iter().all(|n| *n == 1));
        assert_eq!(byte_of_char('Ġ'), Some(b' '));
        assert_eq!(byte_of_char('Ċ'), Some(b'\n'));
        assert_eq!(byte_of_char(' '), None);
        assert_eq!(byte_of_char('日'), None);
    }

    #[test]
    fn names_of_bytes() {
        assert_eq!(byte_of_name("<0x0A>"), Some(10));
        assert_eq!(byte_of_name("<0xff>"), Some(255));
        assert_eq!(byte_of_name("<0x+1>"), None);
        assert_eq!(byte_of_name("<0x123>"), None);
    }
}
