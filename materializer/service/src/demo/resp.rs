//! A client of the Redis protocol, as small as it can be: a command out, a reply in.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a reply may take.
const REPLY_WITHIN: Duration = Duration::from_secs(5);

/// A connection to a server of the Redis protocol.
pub(super) struct RespClient {
    stream: BufReader<TcpStream>,
}

/// A reply that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Nil,
    Text(Vec<u8>),
    Number(i64),
    List(Vec<Reply>),
}

impl RespClient {
    pub(super) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, REPLY_WITHIN)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_WITHIN))?;
        stream.set_write_timeout(Some(REPLY_WITHIN))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a command and returns the reply; an error of the server's is an error here.
    pub(super) fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<Reply> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&command)?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| strange(&line))?;
        let count = || rest.parse::<i64>().map_err(|_| strange(&line));
        match kind {
            "+" => Ok(Reply::Text(rest.as_bytes().to_vec())),
            "-" => Err(io::Error::other(rest.to_owned())),
            ":" => count().map(Reply::Number),
            "$" => match usize::try_from(count()?) {
                Err(_) => Ok(Reply::Nil),
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Ok(Reply::Text(bytes))
                }
            },
            "*" => match usize::try_from(count()?) {
                Err(_) => Ok(Reply::Nil),
                Ok(length) => (0..length)
                    .map(|_| self.reply())
                    .collect::<io::Result<_>>()
                    .map(Reply::List),
            },
            _ => Err(strange(&line)),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

fn strange(line: &str) -> io::Error {
    io::Error::other(format!("`{line}` is no reply of the Redis protocol"))
}
