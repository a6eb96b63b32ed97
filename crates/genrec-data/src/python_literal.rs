//! Python literals, in which the Amazon files of 2014 are written.
//!
//! Dictionaries with string keys, lists, tuples, strings of every quoting with their escapes, numbers, `True`, `False`
//! and `None`, as `ast.literal_eval` takes them; sets, bytes, complex numbers and `\N{..}` are refused.

use serde_json::{Map, Number, Value};

use crate::lines::{Fault, LineResult};

/// Nesting beyond this is refused, so that hostile input cannot exhaust the stack.
const MAX_DEPTH: usize = 64;

/// Parses one literal that takes up the whole text. Tuples become arrays.
pub(crate) fn parse(text: &str) -> LineResult<Value> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.space();
    if parser.at < text.len() {
        return parser.expected("the end of the line");
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn expected<T>(&self, what: &str) -> LineResult<T> {
        Err(Fault::at(self.at + 1, what))
    }

    fn value(&mut self, depth: usize) -> LineResult<Value> {
        self.space();
        if depth > MAX_DEPTH {
            return self.expected("at most 64 levels of nesting");
        }
        match self.peek() {
            Some(b'{') => self.dictionary(depth),
            Some(b'[') => self.sequence(b']', depth),
            Some(b'(') => self.sequence(b')', depth),
            Some(b'\'' | b'"') => self.strings().map(Value::String),
            Some(b'u' | b'U' | b'r' | b'R') => self.strings().map(Value::String),
            Some(b'-' | b'+' | b'.' | b'0'..=b'9') => self.number(),
            Some(_) => {
                for (word, value) in [("True", Value::Bool(true)), ("False", Value::Bool(false)), ("None", Value::Null)]
                {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                self.expected("a Python literal")
            }
            None => self.expected("a Python literal"),
        }
    }

    fn dictionary(&mut self, depth: usize) -> LineResult<Value> {
        self.at += 1;
        let mut map = Map::new();
        loop {
            self.space();
            if self.eat(b'}') {
                return Ok(Value::Object(map));
            }
            if !matches!(self.peek(), Some(b'\'' | b'"' | b'u' | b'U' | b'r' | b'R')) {
                return self.expected("a string as key, or `}`");
            }
            let key = self.strings()?;
            self.space();
            if !self.eat(b':') {
                return self.expected("`:`");
            }
            let value = self.value(depth + 1)?;
            map.insert(key, value);
            self.space();
            if !self.eat(b',') && self.peek() != Some(b'}') {
                return self.expected("`,` or `}`");
            }
        }
    }

    fn sequence(&mut self, close: u8, depth: usize) -> LineResult<Value> {
        self.at += 1;
        let (mut values, mut commas) = (Vec::new(), 0);
        loop {
            self.space();
            if self.eat(close) {
                // `(x)` is `x`, `(x,)` is a tuple.
                if close == b')' && commas == 0 && values.len() == 1 {
                    return Ok(values.swap_remove(0));
                }
                return Ok(Value::Array(values));
            }
            values.push(self.value(depth + 1)?);
            self.space();
            if self.eat(b',') {
                commas += 1;
            } else if self.peek() != Some(close) {
                return self.expected(if close == b']' { "`,` or `]`" } else { "`,` or `)`" });
            }
        }
    }

    fn number(&mut self) -> LineResult<Value> {
        let start = self.at;
        if matches!(self.peek(), Some(b'-' | b'+')) {
            self.at += 1;
        }
        while let Some(byte) = self.peek() {
            let sign_of_exponent =
                matches!(byte, b'-' | b'+') && matches!(self.text.as_bytes()[self.at - 1], b'e' | b'E');
            if !(byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E') || sign_of_exponent) {
                break;
            }
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        let digits = digits.strip_prefix('+').unwrap_or(digits);
        if matches!(self.peek(), Some(b'l' | b'L')) {
            self.at += 1; // Python 2's long
        }
        let number = digits.parse::<i64>().ok().map(Number::from).or_else(|| {
            let float = digits.parse::<f64>().ok()?;
            Number::from_f64(float)
        });
        number.map(Value::Number).ok_or_else(|| Fault::at(start + 1, "a finite number"))
    }

    /// One string, or several side by side, which Python joins.
    fn strings(&mut self) -> LineResult<String> {
        let mut joined = String::new();
        loop {
            self.string(&mut joined)?;
            let end = self.at;
            self.space();
            if !matches!(self.peek(), Some(b'\'' | b'"')) {
                self.at = end;
                return Ok(joined);
            }
        }
    }

    fn string(&mut self, out: &mut String) -> LineResult<()> {
        let mut raw = false;
        while let Some(prefix @ (b'u' | b'U' | b'r' | b'R')) = self.peek() {
            raw |= matches!(prefix, b'r' | b'R');
            self.at += 1;
        }
        let Some(quote @ (b'\'' | b'"')) = self.peek() else { return self.expected("a quote") };
        self.at += 1;
        let mut high_surrogate: Option<u32> = None;
        loop {
            let rest = &self.text[self.at..];
            let Some(c) = rest.chars().next() else { return self.expected("the closing quote") };
            let mut code = None;
            if c == char::from(quote) {
                self.at += 1;
                if high_surrogate.is_some() {
                    out.push(char::REPLACEMENT_CHARACTER);
                }
                return Ok(());
            } else if c == '\\' && raw {
                // A raw string keeps the backslash and what follows it, a quote included.
                let next = rest[1..].chars().next();
                let Some(next) = next else { return self.expected("the closing quote") };
                out.push('\\');
                out.push(next);
                self.at += 1 + next.len_utf8();
            } else if c == '\\' {
                code = self.escape(out)?;
            } else {
                self.at += c.len_utf8();
                code = Some(u32::from(c));
            }
            let Some(code) = code else { continue };
            match (high_surrogate.take(), code) {
                (Some(high), 0xdc00..=0xdfff) => {
                    let joined = 0x1_0000 + ((high - 0xd800) << 10) + (code - 0xdc00);
                    out.push(char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER));
                    continue;
                }
                (Some(_), _) => out.push(char::REPLACEMENT_CHARACTER),
                (None, _) => {}
            }
            match code {
                0xd800..=0xdbff => high_surrogate = Some(code),
                _ => out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)),
            }
        }
    }

    /// An escape sequence: its code point, or what has no code point of its own written to `out`.
    fn escape(&mut self, out: &mut String) -> LineResult<Option<u32>> {
        let start = self.at;
        let Some(c) = self.text[start + 1..].chars().next() else { return self.expected("an escape sequence") };
        self.at = start + 1 + c.len_utf8();
        let plain = |c: char| Ok(Some(u32::from(c)));
        match c {
            '\\' | '\'' | '"' => plain(c),
            'n' => plain('\n'),
            't' => plain('\t'),
            'r' => plain('\r'),
            'a' => plain('\u{7}'),
            'b' => plain('\u{8}'),
            'f' => plain('\u{c}'),
            'v' => plain('\u{b}'),
            'x' => self.hexadecimal(start, 2),
            'u' => self.hexadecimal(start, 4),
            'U' => self.hexadecimal(start, 8),
            'N' => Err(Fault::at(start + 1, "an escape sequence other than \\N{..}")),
            '0'..='7' => {
                let mut code = u32::from(c) - u32::from('0');
                for _ in 0..2 {
                    let Some(digit @ b'0'..=b'7') = self.peek() else { break };
                    code = code * 8 + u32::from(digit - b'0');
                    self.at += 1;
                }
                Ok(Some(code))
            }
            other => {
                // Python keeps the backslash of an escape it does not know.
                out.push('\\');
                plain(other)
            }
        }
    }

    fn hexadecimal(&mut self, start: usize, digits: usize) -> LineResult<Option<u32>> {
        let text = self.text.get(self.at..self.at + digits).filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = text.and_then(|t| u32::from_str_radix(t, 16).ok()).filter(|&code| code <= 0x10_ffff);
        self.at += digits;
        match code {
            Some(code) => Ok(Some(code)),
            None => Err(Fault::at(start + 1, format!("{digits} hexadecimal digits of a code point"))),
        }
    }
}

#[cfg(test)]
mod tests;
