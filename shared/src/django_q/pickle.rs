//! Reads a pickle as data. Nothing is ever called or built: what would make an object in Python is a node that says so.
//!
//! Python's pickle is a program for a small machine with a stack and a memo. This is that machine for the protocols 0 to
//! 5, without persistent ids, extension codes and buffers from outside. Values lie in one flat list and name each other by
//! their place in it, so neither a deep nor a circular pickle costs a recursion, and one that repeats itself costs no
//! copy: memory and time are linear in the input, which is bounded too.

use std::collections::HashMap;

/// The most bytes that a pickle may have. A stat has about 500, and 5 or 6 more for each worker process beyond a few.
pub const MOST_BYTES: usize = 256 << 10;

/// A value's place in its [`Pickle`].
pub type Id = usize;

/// A value. Containers hold the places of what is in them.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number of 128 bits at most.
    Int(Int),
    /// A larger whole number, or a float: nothing here asks for one.
    Number,
    /// Text.
    Text(String),
    /// Bytes, of whatever kind.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A set or a frozen one.
    Set(Vec<Id>),
    /// A dictionary: each key with its value, in order.
    Dict(Vec<(Id, Id)>),
    /// The name of something in a Python module: two texts.
    Global {
        /// The module.
        module: Id,
        /// The name in it.
        name: Id,
    },
    /// What Python would make by calling `what` with `arguments`.
    Object {
        /// A class or a function.
        what: Id,
        /// A tuple.
        arguments: Id,
        /// What it would be told thereafter.
        state: Option<Id>,
    },
}

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int {
    /// Whether it is below zero.
    pub negative: bool,
    /// Its distance from zero.
    pub magnitude: u128,
}

/// A pickle that was read.
#[derive(Clone, Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

/// What is no pickle, or none of a kind that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Pickle {
    /// Reads a pickle, which ends where it says so.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        Self::parse_up_to(MOST_BYTES, bytes)
    }

    /// The same with another bound.
    pub fn parse_up_to(most: usize, bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() > most {
            return Err(Unreadable);
        }
        Machine {
            input: bytes,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
        .run()
    }

    /// The value that the pickle is of.
    pub fn root(&self) -> &Node {
        &self.nodes[self.root]
    }

    /// The value at a place, which another value has named.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// Whether a value is the name of this in that module.
    pub fn is_global(&self, id: Id, wanted_module: &str, wanted_name: &str) -> bool {
        let is = |id: Id, wanted: &str| matches!(self.node(id), Node::Text(text) if text == wanted);
        match self.node(id) {
            Node::Global { module, name } => is(*module, wanted_module) && is(*name, wanted_name),
            _ => false,
        }
    }

    /// The value at a key of a dictionary, which is text; the last one, as in Python.
    pub fn entry(&self, dict: &[(Id, Id)], key: &str) -> Option<&Node> {
        let is = |id: Id| matches!(self.node(id), Node::Text(text) if text == key);
        dict.iter().rev().find(|(id, _)| is(*id)).map(|(_, value)| self.node(*value))
    }
}

struct Machine<'a> {
    input: &'a [u8],
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// The heights of the stack at which something began.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

type Done = Result<(), Unreadable>;

impl<'a> Machine<'a> {
    fn run(mut self) -> Result<Pickle, Unreadable> {
        loop {
            let code = self.byte()?;
            if code == b'.' {
                let root = self.pop()?;
                return Ok(Pickle { nodes: self.nodes, root });
            }
            self.step(code)?;
        }
    }

    /// One step of the machine. The codes are those of Python's `pickletools`.
    fn step(&mut self, code: u8) -> Done {
        match code {
            // PROTO: what is known here is known by its codes, whatever protocol is announced. FRAME: only a hint.
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.drop_top(),
            b'1' => self.above_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'I' | b'J' | b'K' | b'L' | b'M' | 0x8a | 0x8b | b'F' | b'G' => self.number(code),
            b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d => self.text(code),
            b'B' | b'C' | 0x8e | 0x96 => self.bytes(code),
            b']' | b'a' | b'e' | b'l' => self.list(code),
            b')' | b't' | 0x85..=0x87 => self.tuple(code),
            b'}' | b'd' | b's' | b'u' => self.dict(code),
            0x8f..=0x91 => self.set(code),
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memo(code),
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'o' | b'i' | b'b' => self.object(code),
            _ => Err(Unreadable),
        }
    }

    fn number(&mut self, code: u8) -> Done {
        let node = match code {
            // Two spellings of truth values, from before there was a code for them.
            b'I' => match self.line()? {
                b"00" => Node::Bool(false),
                b"01" => Node::Bool(true),
                digits => decimal(digits)?,
            },
            b'L' => {
                let line = self.line()?;
                decimal(line.strip_suffix(b"L").unwrap_or(line))?
            }
            b'J' => little_endian(self.take(4)?),
            b'K' | b'M' => little_endian_unsigned(self.take(if code == b'K' { 1 } else { 2 })?),
            0x8a => {
                let length = self.byte()?.into();
                little_endian(self.take(length)?)
            }
            0x8b => {
                let length = self.length(4)?;
                little_endian(self.take(length)?)
            }
            b'F' => self.line().map(|_| Node::Number)?,
            _ => self.take(8).map(|_| Node::Number)?,
        };
        self.push(node)
    }

    fn text(&mut self, code: u8) -> Done {
        let bytes = match code {
            // Of the escapes in a line only those are understood that are none: nothing here asks for another.
            b'S' => unquoted(self.line()?)?,
            b'V' => Some(self.line()?).filter(|line| !line.contains(&b'\\')).ok_or(Unreadable)?,
            b'U' | 0x8c => self.counted(1)?,
            b'T' | b'X' => self.counted(4)?,
            _ => self.counted(8)?,
        };
        let text = String::from_utf8(bytes.to_vec()).map_err(|_| Unreadable)?;
        self.push(Node::Text(text))
    }

    fn bytes(&mut self, code: u8) -> Done {
        let bytes = match code {
            b'C' => self.counted(1)?,
            b'B' => self.counted(4)?,
            _ => self.counted(8)?,
        };
        self.push(Node::Bytes(bytes.to_vec()))
    }

    fn list(&mut self, code: u8) -> Done {
        let more = match code {
            b']' => return self.push(Node::List(Vec::new())),
            b'a' => vec![self.pop()?],
            _ => self.above_mark()?,
        };
        if code == b'l' {
            return self.push(Node::List(more));
        }
        match self.top_node()? {
            Node::List(list) => {
                list.extend(more);
                Ok(())
            }
            _ => Err(Unreadable),
        }
    }

    fn tuple(&mut self, code: u8) -> Done {
        let items = match code {
            b')' => Vec::new(),
            b't' => self.above_mark()?,
            _ => {
                let at = self.stack.len().checked_sub(usize::from(code - 0x84)).ok_or(Unreadable)?;
                self.split_off(at)?
            }
        };
        self.push(Node::Tuple(items))
    }

    fn dict(&mut self, code: u8) -> Done {
        let items = match code {
            b'}' => Vec::new(),
            b's' => {
                let at = self.stack.len().checked_sub(2).ok_or(Unreadable)?;
                self.split_off(at)?
            }
            _ => self.above_mark()?,
        };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Unreadable);
        }
        let pairs = pairs.iter().map(|[key, value]| (*key, *value));
        if matches!(code, b'}' | b'd') {
            let pairs = pairs.collect();
            return self.push(Node::Dict(pairs));
        }
        match self.top_node()? {
            Node::Dict(dict) => {
                dict.extend(pairs);
                Ok(())
            }
            _ => Err(Unreadable),
        }
    }

    fn set(&mut self, code: u8) -> Done {
        if code == 0x8f {
            return self.push(Node::Set(Vec::new()));
        }
        let items = self.above_mark()?;
        if code == 0x91 {
            return self.push(Node::Set(items));
        }
        match self.top_node()? {
            Node::Set(set) => {
                set.extend(items);
                Ok(())
            }
            _ => Err(Unreadable),
        }
    }

    fn memo(&mut self, code: u8) -> Done {
        let at = match code {
            0x94 => self.memo.len() as u64,
            b'p' | b'g' => {
                let line = std::str::from_utf8(self.line()?).map_err(|_| Unreadable)?;
                line.parse().map_err(|_| Unreadable)?
            }
            b'q' | b'h' => self.byte()?.into(),
            _ => self.length(4)? as u64,
        };
        if matches!(code, b'g' | b'h' | b'j') {
            let id = *self.memo.get(&at).ok_or(Unreadable)?;
            self.stack.push(id);
        } else {
            let top = self.top()?;
            self.memo.insert(at, top);
        }
        Ok(())
    }

    /// Whatever would name, call or change something in Python.
    fn object(&mut self, code: u8) -> Done {
        match code {
            b'c' => {
                let global = self.global()?;
                self.push(global)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.nodes[module], &self.nodes[name]) {
                    (Node::Text(_), Node::Text(_)) => self.push(Node::Global { module, name }),
                    _ => Err(Unreadable),
                }
            }
            b'R' | 0x81 => {
                let (arguments, what) = (self.pop()?, self.pop()?);
                self.push(Node::Object { what, arguments, state: None })
            }
            0x92 => {
                let _keywords = self.pop()?;
                let (arguments, what) = (self.pop()?, self.pop()?);
                self.push(Node::Object { what, arguments, state: None })
            }
            b'o' => {
                let mut items = self.above_mark()?;
                if items.is_empty() {
                    return Err(Unreadable);
                }
                let what = items.remove(0);
                self.object_of(what, items)
            }
            b'i' => {
                let global = self.global()?;
                let what = self.add(global);
                let items = self.above_mark()?;
                self.object_of(what, items)
            }
            _ => {
                let told = self.pop()?;
                match self.top_node()? {
                    Node::Object { state, .. } => {
                        *state = Some(told);
                        Ok(())
                    }
                    _ => Err(Unreadable),
                }
            }
        }
    }

    fn object_of(&mut self, what: Id, arguments: Vec<Id>) -> Done {
        let arguments = self.add(Node::Tuple(arguments));
        self.push(Node::Object { what, arguments, state: None })
    }

    fn global(&mut self) -> Result<Node, Unreadable> {
        let mut name = || {
            let text = String::from_utf8(self.line()?.to_vec()).map_err(|_| Unreadable)?;
            Ok(self.add(Node::Text(text)))
        };
        Ok(Node::Global { module: name()?, name: name()? })
    }

    fn add(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    #[expect(clippy::unnecessary_wraps, reason = "a step of the machine, as all others are")]
    fn push(&mut self, node: Node) -> Done {
        let id = self.add(node);
        self.stack.push(id);
        Ok(())
    }

    /// How far down the stack may be used: what stands below the last mark is not at hand.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or_default()
    }

    fn top(&self) -> Result<Id, Unreadable> {
        if self.stack.len() > self.floor() {
            self.stack.last().copied().ok_or(Unreadable)
        } else {
            Err(Unreadable)
        }
    }

    fn top_node(&mut self) -> Result<&mut Node, Unreadable> {
        let top = self.top()?;
        Ok(&mut self.nodes[top])
    }

    fn pop(&mut self) -> Result<Id, Unreadable> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// POP takes a mark away where nothing stands above it.
    fn drop_top(&mut self) -> Done {
        if self.pop().is_ok() || self.marks.pop().is_some() { Ok(()) } else { Err(Unreadable) }
    }

    fn split_off(&mut self, at: usize) -> Result<Vec<Id>, Unreadable> {
        if at < self.floor() { Err(Unreadable) } else { Ok(self.stack.split_off(at)) }
    }

    fn above_mark(&mut self) -> Result<Vec<Id>, Unreadable> {
        let mark = self.marks.pop().ok_or(Unreadable)?;
        Ok(self.stack.split_off(mark))
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.input.split_first().ok_or(Unreadable)?;
        self.input = rest;
        Ok(*first)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.input.split_at_checked(length).ok_or(Unreadable)?;
        self.input = rest;
        Ok(taken)
    }

    /// A length in so many bytes, eight at most.
    fn length(&mut self, bytes: usize) -> Result<usize, Unreadable> {
        let mut whole = [0; 8];
        whole[..bytes].copy_from_slice(self.take(bytes)?);
        usize::try_from(u64::from_le_bytes(whole)).map_err(|_| Unreadable)
    }

    fn counted(&mut self, bytes: usize) -> Result<&'a [u8], Unreadable> {
        let length = self.length(bytes)?;
        self.take(length)
    }

    fn line(&mut self) -> Result<&'a [u8], Unreadable> {
        let end = self.input.iter().position(|byte| *byte == b'\n').ok_or(Unreadable)?;
        let line = self.take(end)?;
        self.byte()?;
        Ok(line)
    }
}

fn unquoted(line: &[u8]) -> Result<&[u8], Unreadable> {
    match line {
        [b'\'', text @ .., b'\''] | [b'"', text @ .., b'"'] if !text.contains(&b'\\') => Ok(text),
        _ => Err(Unreadable),
    }
}

fn decimal(digits: &[u8]) -> Result<Node, Unreadable> {
    let (negative, digits) = match digits {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Unreadable);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Unreadable)?;
    Ok(text.parse().map_or(Node::Number, |magnitude| Node::Int(Int { negative, magnitude })))
}

/// A number in two's complement.
fn little_endian(bytes: &[u8]) -> Node {
    let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let mut whole = [fill; 16];
    for (at, byte) in bytes.iter().enumerate() {
        match whole.get_mut(at) {
            Some(place) => *place = *byte,
            None if *byte == fill => {}
            None => return Node::Number,
        }
    }
    let bits = u128::from_le_bytes(whole);
    if negative && bits >> 127 == 0 {
        return Node::Number;
    }
    Node::Int(Int { negative, magnitude: if negative { bits.wrapping_neg() } else { bits } })
}

fn little_endian_unsigned(bytes: &[u8]) -> Node {
    let magnitude = bytes.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte));
    Node::Int(Int { negative: false, magnitude })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Node {
        Pickle::parse(bytes).unwrap().root().clone()
    }

    fn int(number: i64) -> Node {
        Node::Int(Int { negative: number < 0, magnitude: number.unsigned_abs().into() })
    }

    #[test]
    fn numbers_of_every_protocol_are_what_python_means() {
        for (bytes, node) in [
            (&b"I42\n."[..], int(42)),
            (b"I-7\n.", int(-7)),
            (b"I01\n.", Node::Bool(true)),
            (
                b"L12345678901234567890L\n.",
                Node::Int(Int { negative: false, magnitude: 12_345_678_901_234_567_890 }),
            ),
            (b"K\xff.", int(255)),
            (b"M\x01\x02.", int(513)),
            (b"J\xff\xff\xff\xff.", int(-1)),
            (b"\x8a\x00.", int(0)),
            (b"\x8a\x02\xff\x00.", int(255)),
            (b"\x8a\x01\x80.", int(-128)),
            (b"\x8b\x01\x00\x00\x00\x05.", int(5)),
            (b"F1.5\n.", Node::Number),
            (b"G\x3f\xf8\x00\x00\x00\x00\x00\x00.", Node::Number),
        ] {
            assert_eq!(read(bytes), node, "{bytes:?}");
        }
        let mut largest = vec![0x8a, 17];
        largest.extend([0xff; 16]);
        largest.extend([0, b'.']);
        assert_eq!(read(&largest), Node::Int(Int { negative: false, magnitude: u128::MAX }));
        largest[17] = 0x7f;
        assert_eq!(read(&largest), Node::Int(Int { negative: false, magnitude: u128::MAX ^ (0x80 << 120) }));
        largest[18] = 0xff;
        assert_eq!(read(&largest), Node::Number);
    }

    #[test]
    fn lists_dictionaries_and_texts_are_read_by_every_spelling() {
        let list = |bytes: &[u8]| {
            let pickle = Pickle::parse(bytes).unwrap();
            let Node::List(items) = pickle.root() else { panic!("{pickle:?}") };
            items.iter().map(|id| pickle.node(*id).clone()).collect::<Vec<_>>()
        };
        let text = |text: &str| Node::Text(text.to_owned());
        let both = [text("a"), text("b")];
        for bytes in [
            &b"(lp0\nVa\np1\naVb\np2\na."[..],
            b"]q\x00(X\x01\x00\x00\x00aq\x01X\x01\x00\x00\x00bq\x02e.",
            b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c\x01a\x94\x8c\x01b\x94e.",
            b"(S'a'\nU\x01bl.",
        ] {
            assert_eq!(list(bytes), both, "{bytes:?}");
        }
        let pickle = Pickle::parse(b"}(Va\nK\x01Va\nK\x02u.").unwrap();
        let Node::Dict(dict) = pickle.root() else { panic!() };
        assert_eq!((pickle.entry(dict, "a"), pickle.entry(dict, "b")), (Some(&int(2)), None));
    }

    #[test]
    fn what_would_call_something_is_only_named() {
        let pickle = Pickle::parse(b"cos\nsystem\n(S'true'\ntR.").unwrap();
        let Node::Object { what, arguments, state: None } = pickle.root() else { panic!("{pickle:?}") };
        assert!(pickle.is_global(*what, "os", "system") && !pickle.is_global(*what, "os", "exec"));
        assert!(matches!(pickle.node(*arguments), Node::Tuple(items) if items.len() == 1));
    }

    #[test]
    fn what_is_not_read_here_is_refused() {
        for bytes in [
            &b""[..],
            b".",
            b"N",
            b"Pid\n.",
            b"\x82\x01.",
            b"\x97.",
            b"h\x00.",
            b"e.",
            b"(.",
            b"(K\x01d.",
            b"K\x01a.",
            b"N)b.",
            b"\x86.",
            b"K\x01(K\x02\x86.",
            b"X\xff\xff\xff\xffa.",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffa.",
            b"\x8c\x01\xff.",
            b"V\\u0041\n.",
            b"I\n.",
        ] {
            let read = Pickle::parse(bytes);
            assert!(read.is_err(), "{bytes:?}: {read:?}");
        }
        // What stands before a mark that is taken away is there again, as in Python.
        assert_eq!(Pickle::parse(b"N(0.").unwrap().root(), &Node::None);
        let mut large = vec![b'N'; MOST_BYTES];
        large.push(b'.');
        assert!(Pickle::parse(&large).is_err());
    }

    #[test]
    fn depth_rings_and_repetition_cost_what_their_bytes_cost() {
        // A hundred thousand lists within each other; nothing here recurses, not even their end.
        let mut deep = vec![b']'; 100_000];
        deep.extend(vec![b'a'; 99_999]);
        deep.push(b'.');
        assert!(matches!(read(&deep), Node::List(items) if items.len() == 1));
        // A list that holds itself.
        assert!(matches!(read(b"]\x94h\x00a."), Node::List(items) if items == [0]));
        // Each list holds the one before ten times: 10^20000 values for whoever would follow them all.
        let mut wide = b"]q\x00".to_vec();
        for _ in 0..10_000 {
            wide.extend(b"0](h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00eq\x00");
        }
        wide.push(b'.');
        assert!(Pickle::parse(&wide).is_ok_and(|pickle| pickle.nodes.len() <= wide.len()));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            if let Ok(pickle) = Pickle::parse(&bytes) {
                prop_assert!(pickle.nodes.len() <= 2 * bytes.len());
            }
        }

        #[test]
        fn no_codes_panic_or_grow(codes in proptest::collection::vec(
            proptest::sample::select(b"(012NIJKLMFGSTUVXBC]ael)t}dsupqrghjcRoib.\n'1\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x00\x01\x02".to_vec()),
            0..400,
        )) {
            if let Ok(pickle) = Pickle::parse(&codes) {
                prop_assert!(pickle.nodes.len() <= 2 * codes.len());
            }
        }
    }
}
