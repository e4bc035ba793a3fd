//! Numbers, texts and lists as Kafka writes them. What they say is `message`'s concern, and how they travel is `line`'s.
//!
//! The crate that is made of Kafka's own schemas reserves memory by the length that a list claims before it looks whether
//! so much is there, so that eight bytes end the process. Here nothing is reserved by what a peer claims; the tests of
//! `message` hold each message to that crate's reading of the schemas.

/// What cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled;

/// Reads from the front of what has come.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Garbled> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Garbled)?;
        self.0 = rest;
        Ok(*number)
    }

    pub fn i8(&mut self) -> Result<i8, Garbled> {
        self.number().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, Garbled> {
        self.number().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Garbled> {
        self.number().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Garbled> {
        self.number().map(i64::from_be_bytes)
    }

    /// A text, or nothing where it is null.
    pub fn optional_text(&mut self) -> Result<Option<&'a str>, Garbled> {
        match self.i16()? {
            -1 => Ok(None),
            length => {
                let text = self.take(usize::try_from(length).map_err(|_| Garbled)?)?;
                std::str::from_utf8(text).map(Some).map_err(|_| Garbled)
            }
        }
    }

    pub fn text(&mut self) -> Result<&'a str, Garbled> {
        self.optional_text()?.ok_or(Garbled)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let length = self.i32()?;
        self.take(usize::try_from(length).map_err(|_| Garbled)?)
    }

    /// Reads each element of a list, and tells how many there were. A list that claims more than there is ends where the
    /// bytes do.
    pub fn each(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Garbled>,
    ) -> Result<usize, Garbled> {
        let count = usize::try_from(self.i32()?).map_err(|_| Garbled)?;
        for _ in 0..count {
            element(self)?;
        }
        Ok(count)
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Garbled> {
        if self.0.is_empty() { Ok(()) } else { Err(Garbled) }
    }
}

/// Writes one thing after another.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn i8(mut self, number: i8) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub fn i16(mut self, number: i16) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub fn i32(mut self, number: i32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub fn i64(mut self, number: i64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// A text, which no setting lets be longer than 32,767 bytes.
    pub fn text(self, text: &str) -> Self {
        let mut writer = self.i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        writer.0.extend(text.as_bytes());
        writer
    }

    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut writer = self.count(bytes.len());
        writer.0.extend(bytes);
        writer
    }

    /// A list.
    pub fn list<T>(
        self,
        items: impl ExactSizeIterator<Item = T>,
        element: impl FnMut(Self, T) -> Self,
    ) -> Self {
        let writer = self.count(items.len());
        items.fold(writer, element)
    }

    fn count(self, count: usize) -> Self {
        self.i32(i32::try_from(count).unwrap_or(i32::MAX))
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }
}
