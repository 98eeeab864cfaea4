//! Replies to bytes, in version 2 or 3 of the protocol.

/// How replies are written. A connection begins with version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Protocol {
    #[default]
    Two,
    Three,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Simple(&'static str),
    /// The first word is the kind of the error, as clients know it.
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Reply>),
    /// Names with their values; in version 2 one array of both in turn.
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// Makes a bulk string of a text.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Bulk(text.into().into_bytes())
    }

    /// Adds the reply's bytes to `out`.
    pub(super) fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        match self {
            Self::Simple(text) => line(out, b'+', text),
            // A line end within would end the reply early and let its rest pass for another one.
            Self::Error(text) => line(out, b'-', &text.replace(['\r', '\n'], " ")),
            Self::Integer(value) => line(out, b':', &value.to_string()),
            Self::Bulk(bytes) => {
                line(out, b'$', &bytes.len().to_string());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Nil => match protocol {
                Protocol::Two => line(out, b'$', "-1"),
                Protocol::Three => line(out, b'_', ""),
            },
            Self::Array(items) => {
                line(out, b'*', &items.len().to_string());
                for item in items {
                    item.encode(protocol, out);
                }
            }
            Self::Map(pairs) => {
                match protocol {
                    Protocol::Two => line(out, b'*', &(2 * pairs.len()).to_string()),
                    Protocol::Three => line(out, b'%', &pairs.len().to_string()),
                }
                for (name, value) in pairs {
                    name.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
        }
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_written_as_their_version_of_the_protocol_says() {
        let reply = Reply::Array(vec![
            Reply::Simple("OK"),
            Reply::Error("ERR a\r\n+OK".into()),
            Reply::Integer(-2),
            Reply::text("a\r\nb"),
            Reply::Nil,
            Reply::Map(vec![(Reply::text("a"), Reply::Nil)]),
        ]);
        let check = |protocol, expected: &str| {
            let mut out = Vec::new();
            reply.encode(protocol, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        let same = "*6\r\n+OK\r\n-ERR a  +OK\r\n:-2\r\n$4\r\na\r\nb\r\n";
        let two = "$-1\r\n*2\r\n$1\r\na\r\n$-1\r\n";
        check(Protocol::Two, &format!("{same}{two}"));
        let three = "_\r\n%1\r\n$1\r\na\r\n_\r\n";
        check(Protocol::Three, &format!("{same}{three}"));
    }
}
