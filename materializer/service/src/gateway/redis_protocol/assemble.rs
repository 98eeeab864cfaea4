//! How the answers to a request's reads become its reply.

use materializer_sinks::redis::Reply as Found;

use super::super::ReadError;
use super::super::rows::Answers;
use super::reply::Reply;

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// How the answers to a request's reads become its reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Assemble {
    /// The one answer of the one read.
    Single,
    /// A list: for each key the number of its read, and its place therein.
    List(Vec<(usize, usize)>),
    /// How many keys have a row.
    Count,
}

/// Returns the reply that tells a client why it gets no answer.
pub(super) fn fault_reply(fault: &ReadError) -> Reply {
    Reply::Error(match fault {
        ReadError::WrongType => WRONG_TYPE.into(),
        ReadError::Invalid(_) | ReadError::NotFound(_) | ReadError::Broken(_) => {
            format!("ERR {fault}")
        }
        ReadError::Gone(_) | ReadError::Unavailable(_) => format!("TRYAGAIN {fault}"),
    })
}

impl Assemble {
    /// Makes the reply of a request of the answers to its reads, which are in the reads' order. A
    /// fault of one is the reply: an answer in parts would pass for a whole one.
    pub(super) fn reply(self, answers: Answers) -> Reply {
        let mut cells = Vec::with_capacity(answers.len());
        for answer in answers {
            match answer {
                Ok(answered) if answered.answer.contains(&Found::WrongType) => {
                    return fault_reply(&ReadError::WrongType);
                }
                Ok(answered) => cells.push(answered.answer),
                Err(fault) => return fault_reply(&fault),
            }
        }
        let mut cell = |(read, place): (usize, usize)| {
            found_reply(std::mem::replace(&mut cells[read][place], Found::Nil))
        };
        match self {
            Self::Single => cell((0, 0)),
            Self::List(places) => Reply::Array(places.into_iter().map(cell).collect()),
            Self::Count => {
                let found = cells.iter().flatten();
                let found = found.filter(|cell| **cell == Found::Number(1)).count();
                Reply::Integer(i64::try_from(found).unwrap_or(i64::MAX))
            }
        }
    }
}

fn found_reply(found: Found) -> Reply {
    match found {
        Found::Nil => Reply::Nil,
        Found::Bytes(value) => Reply::Bulk(value),
        Found::Number(number) => Reply::Integer(number),
        Found::Fields(fields) => {
            let pair = |(name, value)| (Reply::Bulk(name), Reply::Bulk(value));
            Reply::Map(fields.into_iter().map(pair).collect())
        }
        Found::WrongType => fault_reply(&ReadError::WrongType),
    }
}

#[cfg(test)]
mod tests {
    use materializer_model::Offset;

    use super::super::super::Answered;
    use super::*;

    fn answered(answer: Vec<Found>) -> Result<Answered<Vec<Found>>, ReadError> {
        Ok(Answered {
            version: "products@v7".parse().unwrap(),
            epoch: Offset(12),
            answer,
        })
    }

    #[test]
    fn one_read_without_an_answer_leaves_the_request_without_one() {
        let check = |second, expected: &str| {
            let answers = vec![answered(vec![Found::Nil]), second];
            let reply = Assemble::List(vec![(0, 0), (1, 0)]).reply(answers);
            let Reply::Error(why) = reply else {
                panic!("{reply:?}");
            };
            assert!(why.starts_with(expected), "{why}");
        };
        let busy = ReadError::Unavailable("too many requests wait".into());
        check(Err(busy), "TRYAGAIN too many requests wait");
        check(Err(ReadError::Broken("no access".into())), "ERR no access");
        check(answered(vec![Found::WrongType]), "WRONGTYPE ");
    }
}
