//! A look over the text before it is parsed. The parser nests as deep as brackets and operators do, reads the first
//! element of every bracket twice, and has no bound of its own on either: some forty brackets would keep it for ever,
//! some thousand would end the process. Data has few brackets inside each other, and no operators.

use super::super::Document;
use crate::limits;

/// A bracket that is open.
struct Open {
    byte: u8,
    at: usize,
    /// How often the parser reads what stands here.
    times: usize,
}

/// Reports a text that should not be parsed; `None` then.
pub(super) fn check(document: &Document<'_>) -> Option<()> {
    let text = document.text;
    let refuse = |code, at, what, remedy| {
        document.not_data(code, &document.place(at), what, remedy);
        None
    };
    if text.trim().is_empty() {
        return refuse(
            "empty_policy",
            0,
            ("the document is empty", "nothing"),
            ("a data document", "write one, or take it off the list in `zone.toml`"),
        );
    }
    if text.len() > limits::REGO_BYTES {
        return refuse(
            "content_too_large",
            0,
            ("the document is too large", &format!("{} bytes", text.len())),
            (
                &format!("at most {} bytes", limits::REGO_BYTES),
                "spread the grants over several documents, or write it as TOML",
            ),
        );
    }
    let mut scan = Scan { bytes: text.as_bytes(), at: 0, open: Vec::new(), work: 0, package: None };
    match scan.run() {
        Ok(()) => Some(()),
        Err(Bad::Unterminated(at)) => refuse(
            "unterminated_string",
            at,
            ("a string does not end", "no closing quote"),
            ("the quote it began with", "close it; a string in double quotes ends on its line"),
        ),
        Err(Bad::Unbalanced(at)) => refuse(
            "unbalanced_delimiters",
            at,
            ("a bracket has no partner", "a bracket alone, or of another kind"),
            ("brackets in pairs", "close or remove it"),
        ),
        Err(Bad::NoPackage(at)) => refuse(
            "missing_package_declaration",
            at,
            ("the document names no package", "something else"),
            ("`package caracal.authz` before everything else", "begin the document with it"),
        ),
        Err(Bad::Complex(at)) => refuse(
            "content_too_complex",
            at,
            ("this is nested too deep to be data", "brackets inside each other"),
            (&format!("at most {} of them", limits::REGO_DEPTH), "write the values as the guide shows them"),
        ),
        Err(Bad::Condition(at)) => refuse(
            "data_document_rule_body",
            at,
            ("a data document has no conditions", "a rule with a body"),
            ("`name := value`", "write the values out; the decision is the edge's own"),
        ),
        Err(Bad::Operator(at)) => refuse(
            "data_document_not_ground",
            at,
            ("a data document holds values that are written out", "an expression"),
            ("strings, integers, arrays and objects", "write the values out"),
        ),
    }
}

enum Bad {
    Unterminated(usize),
    Unbalanced(usize),
    NoPackage(usize),
    Complex(usize),
    Condition(usize),
    Operator(usize),
}

struct Scan<'t> {
    bytes: &'t [u8],
    at: usize,
    open: Vec<Open>,
    /// Bytes the parser will read, counting those it reads again.
    work: usize,
    /// Where the first word stands, once it has been seen.
    package: Option<usize>,
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), Bad> {
        while let Some(&byte) = self.bytes.get(self.at) {
            let begun = self.at;
            self.at = begun.saturating_add(1);
            match byte {
                b'#' => self.skip(|byte| byte != b'\n'),
                b'"' => self.string(begun)?,
                b'`' => {
                    self.skip(|byte| byte != b'`');
                    self.closing(begun)?;
                }
                b'(' | b'[' | b'{' => self.bracket(byte, begun)?,
                b')' | b']' | b'}' => self.close(byte, begun)?,
                b',' => {
                    let outer = self.outer_times(1);
                    if let Some(open) = self.open.last_mut() {
                        open.times = outer;
                    }
                }
                // A sign belongs to its number.
                b'-' if self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) => {}
                b'+' | b'-' | b'*' | b'/' | b'%' | b'&' | b'|' | b'<' | b'>' | b'!' => {
                    return Err(Bad::Operator(begun));
                }
                byte if is_word(byte) => self.word(begun)?,
                _ => {}
            }
            let times = self.outer_times(0);
            self.work = self.work.saturating_add(self.at.saturating_sub(begun).saturating_mul(times));
            if self.work > limits::REGO_WORK {
                return Err(Bad::Complex(begun));
            }
        }
        match (self.open.last(), self.package) {
            (Some(open), _) => Err(Bad::Unbalanced(open.at)),
            (None, None) => Err(Bad::NoPackage(0)),
            (None, Some(_)) => Ok(()),
        }
    }

    fn bracket(&mut self, byte: u8, at: usize) -> Result<(), Bad> {
        if self.package.is_none() {
            return Err(Bad::NoPackage(at));
        }
        if self.open.len() >= limits::REGO_DEPTH {
            return Err(Bad::Complex(at));
        }
        let times = self.outer_times(0).saturating_mul(2);
        self.open.push(Open { byte, at, times });
        Ok(())
    }

    fn close(&mut self, byte: u8, at: usize) -> Result<(), Bad> {
        let pairs = self
            .open
            .pop()
            .is_some_and(|open| matches!((open.byte, byte), (b'(', b')') | (b'[', b']') | (b'{', b'}')));
        if pairs { Ok(()) } else { Err(Bad::Unbalanced(at)) }
    }

    /// How often what stands around the bracket at this height is read.
    fn outer_times(&self, from_top: usize) -> usize {
        self.open.iter().rev().nth(from_top).map_or(1, |open| open.times)
    }

    fn word(&mut self, begun: usize) -> Result<(), Bad> {
        self.skip(is_word);
        let word = self.bytes.get(begun..self.at).unwrap_or_default();
        if *self.package.get_or_insert(begun) == begun && word != b"package" {
            return Err(Bad::NoPackage(begun));
        }
        match word {
            b"if" | b"else" => Err(Bad::Condition(begun)),
            b"in" | b"some" | b"every" | b"not" | b"with" => Err(Bad::Operator(begun)),
            _ => Ok(()),
        }
    }

    fn string(&mut self, begun: usize) -> Result<(), Bad> {
        loop {
            self.skip(|byte| !matches!(byte, b'"' | b'\\' | b'\n'));
            match self.bytes.get(self.at) {
                Some(b'\\') => self.at = self.at.saturating_add(2),
                Some(b'"') => break,
                _ => return Err(Bad::Unterminated(begun)),
            }
        }
        self.closing(begun)
    }

    /// Passes the quote the text ended at.
    fn closing(&mut self, begun: usize) -> Result<(), Bad> {
        if self.at >= self.bytes.len() {
            return Err(Bad::Unterminated(begun));
        }
        self.at = self.at.saturating_add(1);
        Ok(())
    }

    fn skip(&mut self, over: fn(u8) -> bool) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !over(*byte)).unwrap_or(rest.len());
        self.at = self.at.saturating_add(length);
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
