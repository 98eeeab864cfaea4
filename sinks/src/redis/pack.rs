//! The encoder of the Redis protocol: a command is an array of bulk strings
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

/// Commands in the form in which they are sent, and how many replies they get.
#[derive(Debug, Default)]
pub(super) struct Pack {
    bytes: Vec<u8>,
    commands: usize,
}

impl Pack {
    /// Adds a whole command.
    pub(super) fn command<P: AsRef<[u8]>>(&mut self, parts: &[P]) {
        self.begin(parts.len());
        for part in parts {
            self.part(part.as_ref());
        }
    }

    /// Begins a command: exactly `parts` parts must follow, its name included.
    pub(super) fn begin(&mut self, parts: usize) {
        self.commands += 1;
        self.head(b'*', parts);
    }

    /// Adds one part of a command.
    pub(super) fn part(&mut self, bytes: &[u8]) {
        self.joined(bytes, b"");
    }

    /// Adds one part that is made of two, as a prefix and a key, without joining them first.
    pub(super) fn joined(&mut self, head: &[u8], tail: &[u8]) {
        self.head(b'$', head.len() + tail.len());
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(tail);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Forgets all commands and keeps the room for others.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.commands = 0;
    }

    /// Returns what is sent.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns how many replies will come.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    /// Writes `*3\r\n` or `$3\r\n`: by hand, since this is done several times for every row.
    fn head(&mut self, kind: u8, number: usize) {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit fits");
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&digits[at..]);
        self.bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut pack = Pack::default();
        pack.command(&["SET", "k", ""]);
        pack.begin(2);
        pack.part(b"GET");
        pack.joined(b"prefix:", b"\r\n\0");
        let expected =
            "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$10\r\nprefix:\r\n\0\r\n";
        assert_eq!(pack.bytes(), expected.as_bytes());
        assert_eq!(pack.commands(), 2);
    }

    proptest! {
        #[test]
        fn the_client_library_packs_the_same_bytes(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
        ) {
            let mut pack = Pack::default();
            pack.command(&parts);
            let mut command = ::redis::Cmd::new();
            for part in &parts {
                command.arg(part.as_slice());
            }
            let expected = command.get_packed_command();
            prop_assert_eq!(pack.bytes(), expected.as_slice());
        }
    }
}
