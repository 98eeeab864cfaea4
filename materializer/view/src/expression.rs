//! Expressions: a path, or CEL over paths.
//!
//! Both are parsed as CEL. What is nothing but a path is taken from the record's bytes as it is. In
//! all else each path is replaced by a variable, so that an expression is evaluated on just the
//! values it names, and a path that leads nowhere is null, however deep. Depth and size are bounded
//! before the parser sees the text: it and the evaluation recurse, and an overflowing stack aborts.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators,
};
use cel::common::types::CelString;
use cel::{Env, ParseErrors};
use materializer_model::definition::Format;

use crate::faults::{nearest, one_of};
use crate::functions::{self, FUNCTIONS, MACROS};
use crate::texts;

/// Raise it when an expression may give another value than before.
pub(crate) const REVISION: u32 = 1;

const LENGTH_MAX: usize = 4_096;
/// Brackets within brackets. The crate overflows 512 KiB of stack somewhere above 64.
const NESTING_MAX: usize = 24;
/// Bytes that may be operators; chains of them recurse as well. 512 KiB overflow above 300.
const OPERATORS_MAX: usize = 256;

/// Macros within macros: each level multiplies what a record may cost.
const MACROS_MAX: usize = 4;

/// What paths begin with.
const ROOTS: &[&str] = &["event", "record"];

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A member of an object.
    Field(String),
    /// An item of a list, from 0.
    Item(usize),
}

/// A value that a record gives. `P` is how a part of the decoded value is named: by its path (the whole
/// value without steps), and once a view is compiled by its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input<P = Vec<Step>> {
    /// A part of the decoded value.
    Event(P),
    Key,
    Topic,
    Partition,
    Offset,
    Timestamp,
    /// The last header of this name.
    Header(String),
}

/// A compiled expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expression {
    Path(Input),
    /// CEL whose variable `@N` is the input N.
    Formula {
        root: IdedExpr,
        inputs: Vec<Input>,
    },
}

/// What is wrong with an expression's text, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionFault {
    /// The first character at fault, from 0.
    pub from: usize,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl ExpressionFault {
    fn new(from: usize, message: impl Into<String>) -> Self {
        Self {
            from,
            message: message.into(),
            help: None,
        }
    }

    fn helped(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Compiles an expression for records of a format.
pub(crate) fn compile(
    text: &str,
    format: Format,
    env: &Env,
) -> Result<Expression, ExpressionFault> {
    bound(text)?;
    let (mut root, source) = env
        .parser()
        .parse_with_source_info(text)
        .map_err(|errors| syntax(text, &errors))?;
    let mut compiler = Compiler {
        format,
        source: &source,
        inputs: Vec::new(),
        variables: Vec::new(),
        macros: 0,
    };
    if let Some(path) = path_of(&root) {
        return Ok(Expression::Path(compiler.input(&path, root.id)?));
    }
    compiler.rewrite(&mut root)?;
    let inputs = compiler.inputs;
    Ok(Expression::Formula { root, inputs })
}

/// Refuses what could overflow the parser's or the evaluation's stack. It looks into quoted texts
/// too: to tell them apart it would have to be a parser itself.
fn bound(text: &str) -> Result<(), ExpressionFault> {
    if text.len() > LENGTH_MAX {
        return Err(ExpressionFault::new(
            0,
            format!("longer than {LENGTH_MAX} bytes"),
        ));
    }
    let (mut depth, mut operators) = (0usize, 0usize);
    for (at, character) in text.chars().enumerate() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        operators += usize::from("([{.+-*/%!<>=&|?:".contains(character));
        if depth > NESTING_MAX {
            let message = format!("more than {NESTING_MAX} brackets within brackets");
            return Err(ExpressionFault::new(at, message));
        }
        if operators > OPERATORS_MAX {
            let message = format!("more than {OPERATORS_MAX} operators");
            return Err(ExpressionFault::new(at, message));
        }
    }
    Ok(())
}

/// How the parser's words for the commonest mistakes begin, what is wrong, and what to do about it.
const MISTAKES: [(&str, &str, &str); 2] = [
    (
        "token recognition error at: '=",
        "`=` is no operator",
        "write `==` to compare",
    ),
    (
        "no viable alternative at input '.",
        "a name is missing after the dot",
        "name a field, as in `event.name`",
    ),
];

/// Puts the first fault of the syntax in this project's words.
fn syntax(text: &str, errors: &ParseErrors) -> ExpressionFault {
    let Some(first) = errors.errors.first() else {
        return ExpressionFault::new(0, "not an expression");
    };
    let (line, column) = (first.pos.0.max(1), first.pos.1.max(1));
    let line = usize::try_from(line - 1).unwrap_or(0);
    let before: usize = text
        .split_inclusive('\n')
        .take(line)
        .map(|line| line.chars().count())
        .sum();
    let from = before + usize::try_from(column - 1).unwrap_or(0);
    let from = from.min(text.chars().count());
    let message = first.msg.strip_prefix("Syntax error: ");
    let message = message.unwrap_or(&first.msg);
    let is_meant = |(words, ..): &&(&str, _, _)| message.starts_with(words);
    if let Some((_, message, help)) = MISTAKES.iter().find(is_meant) {
        return ExpressionFault::new(from, *message).helped(*help);
    }
    // The parser lists some twenty tokens that it would have liked.
    let message = message.split(" expecting {").next().unwrap_or(message);
    let message = match message.replace("'<EOF>'", "the end of the expression") {
        told if told.contains("mismatched input the end") => {
            "the expression ends too early".to_owned()
        }
        told => told,
    };
    ExpressionFault::new(from, message.replace('\'', "`"))
}

/// A chain of members and items from a name on.
struct Path {
    root: String,
    steps: Vec<Step>,
}

/// Returns the path that an expression is, if it is nothing else.
fn path_of(expression: &IdedExpr) -> Option<Path> {
    match &expression.expr {
        Expr::Ident(name) => {
            let ours = ROOTS.contains(&name.as_str());
            ours.then(|| Path {
                root: name.clone(),
                steps: Vec::new(),
            })
        }
        Expr::Select(select) if !select.test => {
            let mut path = path_of(&select.operand)?;
            path.steps.push(Step::Field(select.field.clone()));
            Some(path)
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [whole, index] = call.args.as_slice() else {
                return None;
            };
            let Expr::Literal(literal) = &index.expr else {
                return None;
            };
            let step = match literal {
                LiteralValue::String(name) => Step::Field(name.inner().to_owned()),
                LiteralValue::Int(at) => Step::Item(usize::try_from(*at.inner()).ok()?),
                LiteralValue::Boolean(_)
                | LiteralValue::Bytes(_)
                | LiteralValue::Double(_)
                | LiteralValue::Null
                | LiteralValue::UInt(_) => return None,
            };
            let mut path = path_of(whole)?;
            path.steps.push(step);
            Some(path)
        }
        Expr::Unspecified
        | Expr::Call(_)
        | Expr::Comprehension(_)
        | Expr::List(_)
        | Expr::Literal(_)
        | Expr::Map(_)
        | Expr::Select(_)
        | Expr::Struct(_) => None,
    }
}

struct Compiler<'s> {
    format: Format,
    source: &'s SourceInfo,
    inputs: Vec<Input>,
    /// The variables of the macros around.
    variables: Vec<String>,
    /// How many macros are around.
    macros: usize,
}

impl Compiler<'_> {
    fn fault(&self, id: u64, message: impl Into<String>) -> ExpressionFault {
        let from = self.source.offset_for(id).map_or(0, |(from, _)| from);
        ExpressionFault::new(usize::try_from(from).unwrap_or(0), message)
    }

    /// Returns what a path stands for.
    fn input(&self, path: &Path, id: u64) -> Result<Input, ExpressionFault> {
        const PARTS: &[&str] = &[
            "headers",
            "key",
            "offset",
            "partition",
            "timestamp",
            "topic",
        ];
        if path.root == "event" {
            return match self.format {
                Format::Json => Ok(Input::Event(path.steps.clone())),
                Format::Raw => Err(self
                    .fault(id, "`event` has no meaning with `format: raw`")
                    .helped("use `record`, or a format that is decoded")),
            };
        }
        let [Step::Field(part), below @ ..] = path.steps.as_slice() else {
            let message = "`record` is not a value of its own";
            return Err(self
                .fault(id, message)
                .helped(format!("name one of its parts: {}", one_of(PARTS))));
        };
        if part == "headers" {
            return match below {
                [Step::Field(name)] => Ok(Input::Header(name.clone())),
                _ => Err(self
                    .fault(id, "`record.headers` is not a value of its own")
                    .helped("name a header: `record.headers[\"trace-id\"]`")),
            };
        }
        let input = match part.as_str() {
            "key" => Input::Key,
            "topic" => Input::Topic,
            "partition" => Input::Partition,
            "offset" => Input::Offset,
            "timestamp" => Input::Timestamp,
            _ => {
                let near = nearest(part, PARTS);
                let help = near.map_or_else(
                    || format!("it has {}", one_of(PARTS)),
                    |near| format!("did you mean `record.{near}`?"),
                );
                return Err(self
                    .fault(id, format!("`record` has no `{part}`"))
                    .helped(help));
            }
        };
        if below.is_empty() {
            return Ok(input);
        }
        Err(self.fault(id, format!("`record.{part}` has no parts")))
    }

    /// Replaces a path by the variable of its input.
    fn variable(&mut self, path: &Path, id: u64) -> Result<Expr, ExpressionFault> {
        let input = self.input(path, id)?;
        let known = self.inputs.iter().position(|known| *known == input);
        let at = known.unwrap_or_else(|| {
            self.inputs.push(input);
            self.inputs.len() - 1
        });
        Ok(Expr::Ident(format!("@{at}")))
    }

    fn rewrite(&mut self, expression: &mut IdedExpr) -> Result<(), ExpressionFault> {
        let id = expression.id;
        if let Some(path) = path_of(expression) {
            expression.expr = self.variable(&path, id)?;
            return Ok(());
        }
        match &mut expression.expr {
            Expr::Ident(name) => return self.name(id, name),
            Expr::Select(_) => return self.member(expression),
            Expr::Call(call) => self.call(id, call)?,
            Expr::Comprehension(each) => self.each(id, each)?,
            Expr::List(list) => {
                for element in &mut list.elements {
                    self.rewrite(element)?;
                }
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(pair) = &mut entry.expr else {
                        return Err(self.fault(entry.id, "a mapping takes `key: value`"));
                    };
                    self.rewrite(&mut pair.key)?;
                    self.rewrite(&mut pair.value)?;
                }
            }
            Expr::Literal(_) => {}
            Expr::Struct(made) => {
                return Err(self.fault(id, format!("unknown type `{}`", made.type_name)));
            }
            Expr::Unspecified => return Err(self.fault(id, "not an expression")),
        }
        Ok(())
    }

    /// Rewrites a macro, which is a loop by now.
    fn each(&mut self, id: u64, each: &mut ComprehensionExpr) -> Result<(), ExpressionFault> {
        let mut inner = vec![each.iter_var.clone(), each.accu_var.clone()];
        inner.extend(each.iter_var2.clone());
        if let Some(name) = inner.iter().find(|name| ROOTS.contains(&name.as_str())) {
            return Err(self.fault(id, format!("`{name}` is taken: use another name")));
        }
        self.macros += 1;
        if self.macros > MACROS_MAX {
            let message = format!("more than {MACROS_MAX} macros within macros");
            return Err(self.fault(id, message));
        }
        self.rewrite(&mut each.iter_range)?;
        let range = std::mem::take(&mut each.iter_range);
        each.iter_range = call(functions::ITEMS, vec![range]);
        self.rewrite(&mut each.accu_init)?;
        let outer = self.variables.len();
        self.variables.extend(inner);
        self.rewrite(&mut each.loop_cond)?;
        self.rewrite(&mut each.loop_step)?;
        self.rewrite(&mut each.result)?;
        self.variables.truncate(outer);
        self.macros -= 1;
        Ok(())
    }

    /// Checks a name that begins no path.
    fn name(&self, id: u64, name: &str) -> Result<(), ExpressionFault> {
        const TYPES: &[&str] = &[
            "bool",
            "bytes",
            "double",
            "int",
            "list",
            "map",
            "null_type",
            "string",
            "type",
            "uint",
        ];
        if self.variables.iter().any(|known| known == name) || TYPES.contains(&name) {
            return Ok(());
        }
        let near = nearest(name, ROOTS);
        let help = near.map_or_else(
            || format!("a field of the value is `event.{name}`; a text is quoted"),
            |near| format!("did you mean `{near}`?"),
        );
        Err(self
            .fault(id, format!("unknown name `{name}`"))
            .helped(help))
    }

    /// Makes `x.y` null where there is no `y`, and `has(x.y)` whether it is not null.
    fn member(&mut self, expression: &mut IdedExpr) -> Result<(), ExpressionFault> {
        let Expr::Select(select) = std::mem::take(&mut expression.expr) else {
            return Ok(());
        };
        let tested = select.test;
        let mut value = IdedExpr {
            id: expression.id,
            expr: Expr::Select(cel::common::ast::SelectExpr {
                test: false,
                ..select
            }),
        };
        if let Some(path) = path_of(&value) {
            value.expr = self.variable(&path, value.id)?;
        } else if let Expr::Select(mut select) = value.expr {
            self.rewrite(&mut select.operand)?;
            let field = LiteralValue::String(CelString::from(select.field));
            let field = IdedExpr {
                id: value.id,
                expr: Expr::Literal(field),
            };
            value = call(functions::MEMBER, vec![*select.operand, field]);
        }
        *expression = if tested {
            let null = IdedExpr {
                id: value.id,
                expr: Expr::Literal(LiteralValue::Null),
            };
            call(operators::NOT_EQUALS, vec![value, null])
        } else {
            value
        };
        Ok(())
    }

    fn call(&mut self, id: u64, called: &mut CallExpr) -> Result<(), ExpressionFault> {
        let ours = match called.func_name.as_str() {
            // A macro's own `result + [item]`, which the interpreter knows to do in place.
            operators::ADD if accumulates(called) => None,
            operators::ADD => Some(functions::ADD),
            operators::SUBSTRACT => Some(functions::SUBTRACT),
            operators::MULTIPLY => Some(functions::MULTIPLY),
            operators::DIVIDE => Some(functions::DIVIDE),
            operators::MODULO => Some(functions::REMAINDER),
            operators::INDEX => Some(functions::MEMBER),
            "replace" => Some(texts::REPLACE),
            "join" => Some(texts::JOIN),
            operators::CONDITIONAL
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::NEGATE
            | operators::IN
            | operators::NOT_STRICTLY_FALSE => None,
            name if FUNCTIONS.contains(&name) => None,
            name => {
                let known = [FUNCTIONS, MACROS].concat();
                let near = nearest(name, &known);
                let help = near.map_or_else(
                    || format!("there are {}", one_of(&known)),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(self
                    .fault(id, format!("unknown function `{name}`"))
                    .helped(help));
            }
        };
        if let Some(ours) = ours {
            ours.clone_into(&mut called.func_name);
        }
        if let Some(target) = &mut called.target {
            self.rewrite(target)?;
        }
        for argument in &mut called.args {
            self.rewrite(argument)?;
        }
        if called.func_name == operators::ADD
            && let [
                _,
                IdedExpr {
                    expr: Expr::List(made),
                    ..
                },
            ] = called.args.as_mut_slice()
        {
            for item in &mut made.elements {
                *item = call(functions::MADE, vec![std::mem::take(item)]);
            }
        }
        Ok(())
    }
}

/// Says whether a call adds to a macro's result, whose name no expression can write.
fn accumulates(called: &CallExpr) -> bool {
    let first = called.args.first().map(|first| &first.expr);
    matches!(first, Some(Expr::Ident(name)) if name.starts_with('@'))
}

fn call(function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr {
        id: args.first().map_or(0, |first| first.id),
        expr: Expr::Call(CallExpr {
            func_name: function.to_owned(),
            target: None,
            args,
        }),
    }
}
