//! The environment of expressions: CEL's standard library and its strings, and in place of a few
//! operators functions that take JSON as it is.
//!
//! The names of those functions begin with `@`, which no expression can write: the compiler puts
//! them in place of operators (`expression.rs`). They mend four traps of CEL on JSON:
//! int and double do not mix in arithmetic, a missing member is an error, and a mapping is iterated
//! in another order each time.

use std::sync::Arc;

use cel::common::types::{CelDouble, CelInt, CelList, CelMap, CelNull, CelUInt, DYN_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError, extensions};

use crate::{budget, texts};

/// What a function gives.
type Given<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// `a + b` of any two numbers; also texts, lists.
pub(crate) const ADD: &str = "@add";
/// `a - b` of any two numbers.
pub(crate) const SUBTRACT: &str = "@subtract";
/// `a * b` of any two numbers.
pub(crate) const MULTIPLY: &str = "@multiply";
/// `a / b` of any two numbers.
pub(crate) const DIVIDE: &str = "@divide";
/// `a % b` of any two numbers, with the sign of `a`.
pub(crate) const REMAINDER: &str = "@remainder";
/// `a[b]` and `a.b`: null where there is none.
pub(crate) const MEMBER: &str = "@member";
/// What a macro iterates over: a list, or a mapping's keys in their order.
pub(crate) const ITEMS: &str = "@items";
/// An item of a macro's result, as it is.
pub(crate) const MADE: &str = "@made";

/// The functions that an expression can call.
pub const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "charAt",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "indexOf",
    "int",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "replace",
    "reverse",
    "size",
    "split",
    "startsWith",
    "string",
    "substring",
    "trim",
    "type",
    "uint",
    "upperAscii",
];

/// The macros that an expression can use; gone once it is parsed.
pub const MACROS: &[&str] = &["all", "exists", "exists_one", "filter", "has", "map"];

/// Makes the environment. Takes some 35 µs: one for each view.
pub(crate) fn environment() -> Arc<Env> {
    let mut env = Env::stdlib().with_optional_support(false);
    env.add_extension(extensions::strings)
        .expect("the strings are added once");
    let functions: [(&str, cel::common::functions::Function); 6] = [
        (ADD, add),
        (SUBTRACT, subtract),
        (MULTIPLY, multiply),
        (DIVIDE, divide),
        (REMAINDER, remainder),
        (MEMBER, member),
    ];
    texts::add_to(&mut env).expect("each name is added once");
    for (name, function) in functions {
        env.add_overload(name, name, vec![DYN_TYPE, DYN_TYPE], function)
            .expect("each name is added once");
    }
    let counting: [(&str, cel::common::functions::Function); 2] = [(ITEMS, items), (MADE, made)];
    for (name, function) in counting {
        env.add_overload(name, name, vec![DYN_TYPE], function)
            .expect("each name is added once");
    }
    Arc::new(env)
}

fn two<'b, 'v>(
    arguments: Vec<CowVal<'b, 'v>>,
) -> Result<(CowVal<'b, 'v>, CowVal<'b, 'v>), ExecutionError> {
    let [left, right]: [CowVal<'b, 'v>; 2] = arguments
        .try_into()
        .map_err(|_| ExecutionError::missing_argument_or_target())?;
    Ok((left, right))
}

#[expect(
    clippy::as_conversions,
    reason = "arithmetic with a JSON number is arithmetic of doubles"
)]
fn double(value: &dyn Val) -> Option<f64> {
    if let Some(int) = value.downcast_ref::<CelInt>() {
        return Some(*int.inner() as f64);
    }
    if let Some(uint) = value.downcast_ref::<CelUInt>() {
        return Some(*uint.inner() as f64);
    }
    None
}

/// Makes doubles of both where one of them is.
fn alike<'b, 'v>(left: CowVal<'b, 'v>, right: CowVal<'b, 'v>) -> (CowVal<'b, 'v>, CowVal<'b, 'v>) {
    let left_is = left.downcast_ref::<CelDouble>().is_some();
    let right_is = right.downcast_ref::<CelDouble>().is_some();
    match (left_is, right_is) {
        (true, false) => match double(right.as_ref()) {
            Some(right) => (left, CowVal::owned(CelDouble::from(right))),
            None => (left, right),
        },
        (false, true) => match double(left.as_ref()) {
            Some(left) => (CowVal::owned(CelDouble::from(left)), right),
            None => (left, right),
        },
        (true, true) | (false, false) => (left, right),
    }
}

fn refused(operator: &str, left: &dyn Val, right: &dyn Val) -> ExecutionError {
    let types = [left, right].map(|value| value.get_type().name().to_owned());
    ExecutionError::no_such_overload(operator, types.to_vec())
}

macro_rules! arithmetic {
    ($($name:ident: $operator:literal by $as_operand:ident . $apply:ident),+ $(,)?) => {$(
        fn $name<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
            let (left, right) = two(arguments)?;
            let (left, right) = alike(left, right);
            let refused = || refused($operator, left.as_ref(), right.as_ref());
            let operand = left.$as_operand().ok_or_else(refused)?;
            match operand.$apply(right.as_ref()) {
                Ok(value) => {
                    let value = value.into_owned();
                    budget::make(value.as_ref())?;
                    Ok(CowVal::Owned(value))
                }
                Err(ExecutionError::UnsupportedBinaryOperator(..)) => Err(refused()),
                Err(error) => Err(error),
            }
        }
    )+};
}

arithmetic! {
    add: "+" by as_adder.add,
    subtract: "-" by as_subtractor.sub,
    multiply: "*" by as_multiplier.mul,
    divide: "/" by as_divider.div,
}

fn remainder<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    let (left, right) = two(arguments)?;
    let (left, right) = alike(left, right);
    let both = (left.downcast_ref(), right.downcast_ref());
    if let (Some(dividend), Some(divisor)) = both {
        let (dividend, divisor): (&CelDouble, &CelDouble) = (dividend, divisor);
        if *divisor.inner() == 0.0 {
            return Err(ExecutionError::DivisionByZero((*dividend.inner()).into()));
        }
        return Ok(CowVal::owned(CelDouble::from(**dividend % **divisor)));
    }
    let refused = || refused("%", left.as_ref(), right.as_ref());
    let operand = left.as_modder().ok_or_else(refused)?;
    match operand.modulo(right.as_ref()) {
        Ok(value) => Ok(CowVal::Owned(value.into_owned())),
        Err(ExecutionError::UnsupportedBinaryOperator(..)) => Err(refused()),
        Err(error) => Err(error),
    }
}

/// As a path does, it leads to null where there is nothing, whatever the value is.
fn member<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    let (whole, index) = two(arguments)?;
    let found = whole
        .as_indexer()
        .and_then(|indexer| indexer.get(index.as_ref()).ok());
    Ok(match found {
        Some(value) => CowVal::Owned(value.into_owned()),
        None => CowVal::owned(CelNull),
    })
}

fn one<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    let value = arguments.pop();
    value.ok_or_else(ExecutionError::missing_argument_or_target)
}

fn made<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    let value = one(arguments)?;
    budget::make(value.as_ref())?;
    Ok(value)
}

fn items<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    let value = one(arguments)?;
    if let Some(list) = value.downcast_ref::<CelList<'v>>() {
        budget::look_at(list.inner().len())?;
    }
    let Some(map) = value.downcast_ref::<CelMap<'v>>() else {
        return Ok(value);
    };
    budget::look_at(map.inner().len())?;
    let mut keys: Vec<_> = map.inner().keys().collect();
    keys.sort();
    let keys: Vec<Box<dyn Val + 'v>> = keys
        .into_iter()
        .map(|key| key.inner().clone_as_boxed())
        .collect();
    Ok(CowVal::owned(CelList::from(keys)))
}
