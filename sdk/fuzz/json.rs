//! A second reader of callbacks' bodies, to compare the SDK's with. It is simple and recursive; the SDK's is neither.

pub struct Found {
    pub task_id: Option<Option<String>>,
    pub task_is_object: Option<bool>,
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

/// The members that a callback needs; the last of each name counts. `None` if the body is not a JSON object.
pub fn read(body: &[u8]) -> Option<Found> {
    std::str::from_utf8(body).ok()?;
    let mut reader = Reader { text: body, at: 0 };
    let mut found = Found { task_id: None, task_is_object: None };
    reader.space();
    if reader.peek() != Some(b'{') {
        return None;
    }
    reader.object(0, &mut |name, value: &[u8]| match name {
        Some("task_id") => {
            found.task_id =
                Some(value.starts_with(b"\"").then(|| Reader { text: value, at: 0 }.string()).flatten().flatten());
        }
        Some("task") => found.task_is_object = Some(value.starts_with(b"{")),
        _ => {}
    })?;
    reader.space();
    (reader.at == body.len()).then_some(found)
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.object(depth + 1, &mut |_, _| {}),
            b'[' => {
                self.at += 1;
                self.space();
                if self.take(b']').is_some() {
                    return Some(());
                }
                loop {
                    self.space();
                    self.value(depth + 1)?;
                    self.space();
                    if self.take(b']').is_some() {
                        return Some(());
                    }
                    self.take(b',')?;
                }
            }
            b'"' => self.string().map(drop),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize, found: &mut dyn FnMut(Option<&str>, &[u8])) -> Option<()> {
        self.take(b'{')?;
        self.space();
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.take(b':')?;
            self.space();
            let begin = self.at;
            self.value(depth)?;
            found(name.as_deref(), &self.text[begin..self.at]);
            self.space();
            if self.take(b'}').is_some() {
                return Some(());
            }
            self.take(b',')?;
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    /// The outer `None` means that this is not a string. The inner `None` means a string that holds a lone surrogate and
    /// therefore no text.
    fn string(&mut self) -> Option<Option<String>> {
        self.take(b'"')?;
        let mut units: Vec<u16> = Vec::new();
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(String::from_utf16(&units).ok());
                }
                b'\\' => {
                    self.at += 1;
                    let escape = self.peek()?;
                    self.at += 1;
                    units.push(match escape {
                        b'"' | b'\\' | b'/' => u16::from(escape),
                        b'b' => 8,
                        b'f' => 12,
                        b'n' => 10,
                        b'r' => 13,
                        b't' => 9,
                        b'u' => {
                            let digits = self.text.get(self.at..self.at + 4)?;
                            self.at += 4;
                            let hex = digits.iter().all(u8::is_ascii_hexdigit);
                            u16::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| hex)?, 16).ok()?
                        }
                        _ => return None,
                    });
                }
                0..0x20 => return None,
                _ => {
                    let rest = std::str::from_utf8(&self.text[self.at..]).ok()?;
                    let c = rest.chars().next()?;
                    self.at += c.len_utf8();
                    let mut pair = [0; 2];
                    units.extend_from_slice(c.encode_utf16(&mut pair));
                }
            }
        }
    }

    fn digits(&mut self) -> Option<usize> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > begin).then_some(self.at - begin)
    }

    fn number(&mut self) -> Option<()> {
        self.take(b'-'); // optional
        let zero = self.peek()? == b'0';
        let count = self.digits()?;
        if zero && count > 1 {
            return None;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }
}
