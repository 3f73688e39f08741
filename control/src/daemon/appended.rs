//! The end of a file that whole lines are appended to. A disk that is full may take half a line, and
//! a process that was killed may have left one: what comes next begins a line of its own, behind one
//! that says how many were lost.

use std::io::{self, Read, Seek, SeekFrom, Write};

use zeroize::Zeroizing;

/// What the file lacks.
#[derive(Default, Debug)]
pub struct End {
    lost: u64,
    /// It may end within a line.
    torn: bool,
    /// The user has been told.
    failed: bool,
}

impl End {
    /// The end of a file as it is found; half a line counts as lost.
    pub fn of(file: &mut (impl Read + Seek)) -> io::Result<End> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut last = *b"\n";
        if length > 0 {
            file.seek(SeekFrom::Start(length - 1))?;
            file.read_exact(&mut last)?;
        }
        let torn = last != *b"\n";
        Ok(End {
            lost: u64::from(torn),
            torn,
            failed: false,
        })
    }

    /// So many never came here.
    pub fn lose(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
    }

    /// Appends whole lines, behind the one that `tell` makes of how many were lost; gives the octets.
    /// An error is given once for as long as it lasts.
    pub fn append(
        &mut self,
        file: &mut impl Write,
        lines: &str,
        tell: impl Fn(u64) -> String,
    ) -> Result<u64, Option<io::Error>> {
        let told = match self.lost {
            0 => String::new(),
            lost => tell(lost),
        };
        // Lines may be keys; room for all of it at once leaves no copy behind.
        let mut text = Zeroizing::new(String::new());
        text.reserve(1 + told.len() + lines.len());
        if self.torn {
            text.push('\n');
        }
        text.push_str(&told);
        text.push_str(lines);
        match file.write_all(text.as_bytes()) {
            Ok(()) => {
                *self = End::default();
                Ok(text.len() as u64)
            }
            Err(error) => Err(self.fail(lines, error)),
        }
    }

    /// Whether nothing is lost that the file does not say.
    pub fn is_whole(&self) -> bool {
        !self.torn && self.lost == 0
    }

    /// These lines are lost with this error; gives it if it is new.
    pub fn fail(&mut self, lines: &str, error: io::Error) -> Option<io::Error> {
        self.torn = true;
        self.lose(u64::from(!lines.is_empty()));
        (!std::mem::replace(&mut self.failed, true)).then_some(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A disk with little room.
    struct Full {
        content: Vec<u8>,
        room: usize,
    }

    impl Write for Full {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let taken = octets.len().min(self.room);
            if taken == 0 && !octets.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.content.extend_from_slice(&octets[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn tell(lost: u64) -> String {
        format!("lost {lost}\n")
    }

    #[test]
    fn what_follows_half_a_line_begins_its_own_and_says_what_was_lost() {
        let mut file = Full {
            content: Vec::new(),
            room: 12,
        };
        let mut end = End::default();
        assert_eq!(end.append(&mut file, "7 1 10\n", tell).ok(), Some(7));
        let told = end.append(&mut file, "7 11 20\n", tell);
        assert!(told.is_err_and(|error| error.is_some()));
        let again = end.append(&mut file, "7 21 30\n", tell);
        assert!(again.is_err_and(|error| error.is_none()), "told of once");
        file.room = 1_000;
        assert!(end.append(&mut file, "7 31 40\n", tell).is_ok());
        assert!(end.append(&mut file, "7 41 50\n", tell).is_ok());
        let text = String::from_utf8(file.content).unwrap();
        assert_eq!(text, "7 1 10\n7 11 \nlost 2\n7 31 40\n7 41 50\n");
    }

    #[test]
    fn half_a_line_of_an_earlier_process_is_found() {
        for (content, expected) in [
            ("", "7 1 2\n"),
            ("7 1 1\n", "7 1 1\n7 1 2\n"),
            ("7 1", "7 1\nlost 1\n7 1 2\n"),
        ] {
            let mut file = Cursor::new(content.as_bytes().to_vec());
            let mut end = End::of(&mut file).unwrap();
            file.seek(SeekFrom::End(0)).unwrap();
            assert!(end.append(&mut file, "7 1 2\n", tell).is_ok());
            assert_eq!(String::from_utf8(file.into_inner()).unwrap(), expected);
        }
    }
}
