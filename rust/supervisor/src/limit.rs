//! The most lines that a child may write, stdout and stderr together.

/// Counts `\n`, `\r` and `\r\n` as one line end each, as Buildbot does.
#[derive(Debug)]
pub(crate) struct LineLimit {
    left: u64,
    after_return: [bool; 2],
}

impl LineLimit {
    /// Lets `lines` lines pass.
    pub(crate) fn new(lines: u64) -> Self {
        Self { left: lines, after_return: [false; 2] }
    }

    /// How many of these bytes of a channel still belong to the lines that are allowed.
    pub(crate) fn allowed(&mut self, channel: usize, data: &[u8]) -> usize {
        let second_half = std::mem::replace(&mut self.after_return[channel], data.last() == Some(&b'\r'));
        let mut begin = usize::from(second_half && data.first() == Some(&b'\n'));
        for at in memchr::memchr2_iter(b'\n', b'\r', data).skip(begin) {
            let pair = data[at] == b'\n' && at > 0 && data[at - 1] == b'\r';
            if !pair && self.left == 0 {
                break;
            }
            self.left -= u64::from(!pair);
            begin = at + 1;
        }
        if self.left > 0 { data.len() } else { begin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(lines: u64, pieces: &[&str]) -> String {
        let mut limit = LineLimit::new(lines);
        let kept = pieces.iter().map(|piece| &piece[..limit.allowed(0, piece.as_bytes())]);
        kept.collect()
    }

    #[test]
    fn what_stands_behind_the_last_line_is_not_allowed() {
        assert_eq!(kept(2, &["a\nb\nc\n"]), "a\nb\n");
        assert_eq!(kept(2, &["a\n", "b", "\n", "c"]), "a\nb\n");
        assert_eq!(kept(3, &["a\nb\nc"]), "a\nb\nc");
        assert_eq!(kept(0, &["a"]), "");
    }

    #[test]
    fn returns_are_line_ends_and_pairs_are_one() {
        assert_eq!(kept(2, &["1\r2\r3\r"]), "1\r2\r");
        assert_eq!(kept(2, &["a\r\nb\r\nc"]), "a\r\nb\r\n");
        assert_eq!(kept(2, &["a\r", "\nb\r", "\nc"]), "a\r\nb\r\n");
        assert_eq!(kept(2, &["a\r\n\nb"]), "a\r\n\n");
    }

    #[test]
    fn both_channels_share_the_lines() {
        let mut limit = LineLimit::new(2);
        assert_eq!(limit.allowed(0, b"a\n"), 2);
        assert_eq!(limit.allowed(1, b"b\nc\n"), 2);
        assert_eq!(limit.allowed(0, b"d\n"), 0);
    }
}
