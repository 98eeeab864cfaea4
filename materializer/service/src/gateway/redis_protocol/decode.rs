//! Bytes to requests.
//!
//! Requests are arrays of bulk strings, or inline commands (words in a line, as `telnet` sends them).
//! Every length is bounded before anything of that length is kept, and the same bytes give the same
//! requests however they are split. What a request means is `plan`'s business.

use super::super::Limits;

/// A request: the command and its arguments.
pub(super) type Request = Vec<Vec<u8>>;

/// A client that does not speak the protocol, or asks for too much at once. The connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    /// A number of arguments that is none, or too great.
    #[error("Protocol error: invalid multibulk length")]
    ArrayLength,
    /// An element of the array is not a bulk string.
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    NotBulk(u8),
    /// A length that is none, or too great.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// A bulk string is longer or shorter than it said.
    #[error("Protocol error: a bulk string does not end where its length says")]
    BulkEnd,
    /// The arguments together are too long.
    #[error("Protocol error: too big request")]
    RequestTooLarge,
    /// A line is too long.
    #[error("Protocol error: too big inline request")]
    LineTooLong,
    /// An inline command with quotes.
    #[error("Protocol error: inline requests take no quotes, send an array of bulk strings")]
    Quotes,
}

/// The longest line: an inline command, or the head of an array or a bulk string.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Takes bytes as they arrive and gives requests as they are complete.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    /// How much of the buffer has been used up.
    at: usize,
    /// Up to where the buffer holds no line feed.
    scanned: usize,
    open: Option<OpenArray>,
}

/// An array whose elements have not all arrived.
#[derive(Debug)]
struct OpenArray {
    missing: usize,
    arguments: Request,
    bytes: usize,
    /// The length of the bulk string that is under way.
    bulk: Option<usize>,
}

impl Decoder {
    /// Takes bytes in. To be called only when [`Decoder::next`] has nothing left to give: then the
    /// buffer never holds more than one unfinished element and what is fed.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.scanned -= self.at;
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Says whether no request has begun to arrive.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none() && self.at == self.buffer.len()
    }

    /// Returns the next complete request within limits, `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`ProtocolError`]; what follows in the stream means nothing then.
    pub(super) fn next(&mut self, limits: &Limits) -> Result<Option<Request>, ProtocolError> {
        loop {
            if self.open.is_some() {
                return self.continue_array(limits);
            }
            let Some(line) = self.line()? else {
                return Ok(None);
            };
            if line.first() == Some(&b'*') {
                let length = number(&line[1..]).ok_or(ProtocolError::ArrayLength)?;
                // An empty array and a null one are no request, and get no reply.
                let Ok(length @ 1..) = usize::try_from(length) else {
                    continue;
                };
                if length > limits.request_arguments {
                    return Err(ProtocolError::ArrayLength);
                }
                self.open = Some(OpenArray {
                    missing: length,
                    arguments: Vec::new(),
                    bytes: 0,
                    bulk: None,
                });
            } else if line.iter().any(|b| matches!(b, b'"' | b'\'')) {
                return Err(ProtocolError::Quotes);
            } else {
                let words = line.split(u8::is_ascii_whitespace);
                let request: Request = words
                    .filter(|word| !word.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect();
                if !request.is_empty() {
                    return Ok(Some(request));
                }
            }
        }
    }

    fn continue_array(&mut self, limits: &Limits) -> Result<Option<Request>, ProtocolError> {
        while let Some(mut open) = self.open.take() {
            if open.missing == 0 {
                return Ok(Some(open.arguments));
            }
            let progressed = self.element(&mut open, limits);
            self.open = Some(open);
            if !progressed? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Takes one head or one body of a bulk string; says whether enough had arrived.
    fn element(&mut self, open: &mut OpenArray, limits: &Limits) -> Result<bool, ProtocolError> {
        let Some(length) = open.bulk else {
            let Some(line) = self.line()? else {
                return Ok(false);
            };
            let (kind, digits) = line.split_first().ok_or(ProtocolError::BulkLength)?;
            if *kind != b'$' {
                return Err(ProtocolError::NotBulk(*kind));
            }
            let length = number(digits)
                .and_then(|length| usize::try_from(length).ok())
                .filter(|length| *length <= limits.key_bytes)
                .ok_or(ProtocolError::BulkLength)?;
            open.bytes += length;
            if open.bytes > limits.request_bytes {
                return Err(ProtocolError::RequestTooLarge);
            }
            open.bulk = Some(length);
            return Ok(true);
        };
        let Some(bytes) = self.buffer.get(self.at..self.at + length + 2) else {
            return Ok(false);
        };
        let Some(argument) = bytes.strip_suffix(b"\r\n") else {
            return Err(ProtocolError::BulkEnd);
        };
        open.arguments.push(argument.to_vec());
        open.missing -= 1;
        open.bulk = None;
        self.at += length + 2;
        self.scanned = self.at;
        Ok(true)
    }

    /// Takes a line without its end, which is a line feed with or without a carriage return.
    fn line(&mut self) -> Result<Option<Vec<u8>>, ProtocolError> {
        let unseen = &self.buffer[self.scanned..];
        let Some(length) = unseen.iter().position(|b| *b == b'\n') else {
            self.scanned = self.buffer.len();
            return if self.scanned - self.at > LINE_BYTES_MAX {
                Err(ProtocolError::LineTooLong)
            } else {
                Ok(None)
            };
        };
        let end = self.scanned + length;
        if end - self.at > LINE_BYTES_MAX {
            return Err(ProtocolError::LineTooLong);
        }
        let line = &self.buffer[self.at..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        self.at = end + 1;
        self.scanned = self.at;
        Ok(Some(line))
    }
}

/// Reads a decimal number with an optional minus, and nothing around it.
fn number(digits: &[u8]) -> Option<i64> {
    let plain = digits.strip_prefix(b"-").unwrap_or(digits);
    if !plain.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reply::{Protocol, Reply};
    use super::*;

    fn limits() -> Limits {
        Limits {
            key_bytes: 20,
            request_arguments: 4,
            request_bytes: 30,
            ..Limits::default()
        }
    }

    /// Decodes bytes that arrive in the given pieces, up to the first fault.
    fn decode<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<Request>, Option<ProtocolError>) {
        let mut decoder = Decoder::default();
        let mut requests = Vec::new();
        for piece in pieces {
            decoder.feed(piece);
            loop {
                match decoder.next(&limits()) {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(fault) => return (requests, Some(fault)),
                }
            }
        }
        (requests, None)
    }

    fn check(bytes: &[u8], expected: &[&[&str]], fault: Option<ProtocolError>) {
        let expected: Vec<Request> = expected
            .iter()
            .map(|words| words.iter().map(|word| word.as_bytes().to_vec()).collect())
            .collect();
        let shown = bytes.escape_ascii().to_string();
        assert_eq!(
            decode([bytes]),
            (expected.clone(), fault.clone()),
            "{shown}"
        );
        assert_eq!(
            decode(bytes.chunks(1)),
            (expected, fault),
            "byte by byte: {shown}"
        );
    }

    #[test]
    fn arrays_and_inline_commands_become_requests() {
        check(b"*1\r\n$4\r\nPING\r\n", &[&["PING"]], None);
        check(
            b"*2\r\n$3\r\nGET\r\n$5\r\na\r\nb \r\n",
            &[&["GET", "a\r\nb "]],
            None,
        );
        check(b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", &[&["ECHO", ""]], None);
        check(b"  GET  a \r\nPING\n", &[&["GET", "a"], &["PING"]], None);
        check(
            b"\r\n*0\r\n*-1\r\n\nPING\r\n*1\r\n$4\r\nQUIT\r\n",
            &[&["PING"], &["QUIT"]],
            None,
        );
        check(b"*2\r\n$3\r\nGET\r\n$3\r\nab", &[], None);
    }

    #[test]
    fn what_is_no_request_ends_with_its_fault() {
        use ProtocolError::*;
        check(b"PING\r\n*x\r\n", &[&["PING"]], Some(ArrayLength));
        check(b"*5\r\n", &[], Some(ArrayLength));
        check(b"*99999999999999999999\r\n", &[], Some(ArrayLength));
        check(b"*1\r\n:1\r\n", &[], Some(NotBulk(b':')));
        check(b"*1\r\n\r\n", &[], Some(BulkLength));
        check(b"*1\r\n$-1\r\n", &[], Some(BulkLength));
        check(b"*1\r\n$+1\r\n", &[], Some(BulkLength));
        check(b"*1\r\n$21\r\n", &[], Some(BulkLength));
        check(b"*1\r\n$2\r\nabc\r\n", &[], Some(BulkEnd));
        let half = "$20\r\n01234567890123456789\r\n";
        check(
            format!("*2\r\n{half}{half}").as_bytes(),
            &[],
            Some(RequestTooLarge),
        );
        check(b"GET \"a b\"\r\n", &[], Some(Quotes));
        check(&vec![b'a'; LINE_BYTES_MAX + 1], &[], Some(LineTooLong));
    }

    /// Bytes that are nearly the protocol: a few tokens of it in any order.
    fn nearly_requests() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            Just(b"\r\n".to_vec()),
            Just(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n".to_vec()),
            Just(b"*".to_vec()),
            Just(b"$".to_vec()),
            Just(b"-1".to_vec()),
            (0..30u8).prop_map(|n| n.to_string().into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(token, 0..20).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_requests_however_they_are_split(
            bytes in nearly_requests(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            prop_assert_eq!(decode(pieces), decode([&bytes[..]]));
        }

        #[test]
        fn requests_come_back_as_they_were_sent(
            requests in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..7), 1..5), 0..5),
        ) {
            let mut bytes = Vec::new();
            for request in &requests {
                Reply::Array(request.iter().cloned().map(Reply::Bulk).collect()).encode(Protocol::Two, &mut bytes);
            }
            prop_assert_eq!(decode([&bytes[..]]), (requests, None));
        }
    }
}
