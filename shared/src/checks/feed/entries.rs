//! The entries of a feed: RSS of any version, and Atom.
//!
//! It is read from beginning to end without a tree, so that neither depth nor number costs more than the text itself, and
//! no entity is expanded but those that every XML has.

use std::fmt;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};

use crate::checks::upstream::date::{self, Unix};

/// What is kept of a text, in bytes.
const LONGEST: usize = 300;

/// What is kept of an entry's dates.
const DATES: usize = 8;

/// One thing that is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What it says of itself.
    pub title: String,
    /// When it was published and changed, as far as it says so.
    pub dates: Vec<Unix>,
}

/// Why something is no feed.
#[derive(Debug)]
pub enum Wrong {
    /// Its bytes are no text.
    Encoding,
    /// It is no XML.
    Xml(quick_xml::Error),
    /// It is XML of something else, or nothing.
    Root,
    /// It ends before its end.
    BrokenOff,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str("it is not in UTF-8"),
            Self::Xml(error) => write!(f, "{error}"),
            Self::Root => f.write_str("it begins as something else"),
            Self::BrokenOff => f.write_str("it breaks off"),
        }
    }
}

impl std::error::Error for Wrong {}

/// The entries of a feed, in its order.
pub fn read(bytes: &[u8]) -> Result<Vec<Entry>, Wrong> {
    let text = std::str::from_utf8(bytes).map_err(|_| Wrong::Encoding)?;
    let mut reader = Reader::from_str(text);
    let mut reading = Reading::default();
    loop {
        match reader.read_event().map_err(Wrong::Xml)? {
            Event::Start(start) => reading.start(&start)?,
            Event::Empty(empty) => {
                reading.start(&empty)?;
                reading.end();
            }
            Event::End(_) => reading.end(),
            Event::Text(text) => reading.text(&text),
            Event::CData(text) => reading.text(&text),
            Event::GeneralRef(entity) => reading.entity(&entity),
            Event::Eof => return reading.entries(),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

/// What of an entry is read.
#[derive(Clone, Copy, Debug)]
enum Field {
    Title,
    Date,
}

impl Field {
    fn of(start: &BytesStart<'_>) -> Option<Self> {
        match (start.name().as_ref(), start.local_name().as_ref()) {
            // With a prefix it is the title of a picture, or the like.
            (b"title", _) => Some(Self::Title),
            // RSS 2.0; Atom 1.0, alone or within RSS; Dublin Core, which RSS 1.0 uses; Atom 0.3.
            (_, b"pubDate" | b"published" | b"updated" | b"date" | b"issued" | b"modified") => {
                Some(Self::Date)
            }
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Reading {
    entries: Vec<Entry>,
    /// How many elements are open.
    depth: usize,
    /// Whether the root has been, and what has to come below it.
    begun: bool,
    has_channel: bool,
    /// The entry that is being read, at its depth.
    entry: Option<(usize, Entry)>,
    /// The field of it that is being read, at its depth, and the text so far.
    field: Option<(usize, Field, Vec<u8>)>,
}

impl Reading {
    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), Wrong> {
        let name = start.local_name();
        self.depth += 1;
        match (&self.entry, self.depth) {
            (_, 1) => self.root(name.as_ref())?,
            (Some((depth, _)), here) if here == depth + 1 => {
                self.field = Field::of(start).map(|field| (here, field, Vec::new()));
            }
            (None, here) if matches!(name.as_ref(), b"item" | b"entry") => {
                self.entry = Some((here, Entry::default()));
            }
            (None, 2) if name.as_ref() == b"channel" => self.has_channel = true,
            _ => {}
        }
        Ok(())
    }

    fn root(&mut self, name: &[u8]) -> Result<(), Wrong> {
        if self.begun || !matches!(name, b"rss" | b"RDF" | b"feed") {
            return Err(Wrong::Root);
        }
        self.begun = true;
        // Atom has none.
        self.has_channel = name == b"feed";
        Ok(())
    }

    fn text(&mut self, text: &[u8]) {
        if let Some((_, _, so_far)) = &mut self.field {
            let room = LONGEST.saturating_sub(so_far.len());
            so_far.extend_from_slice(&text[..room.min(text.len())]);
        }
    }

    fn entity(&mut self, entity: &BytesRef<'_>) {
        let mut buffer = [0; 4];
        let character = entity.resolve_char_ref().ok().flatten();
        let text = match character {
            Some(character) => Some(&*character.encode_utf8(&mut buffer)),
            None => std::str::from_utf8(entity).ok().and_then(resolve_predefined_entity),
        };
        self.text(text.unwrap_or_default().as_bytes());
    }

    fn end(&mut self) {
        if let Some((_, field, text)) = self.field.take_if(|(depth, ..)| *depth == self.depth)
            && let Some((_, entry)) = &mut self.entry
        {
            let text = String::from_utf8_lossy(&text);
            match field {
                Field::Title => text.trim().clone_into(&mut entry.title),
                Field::Date if entry.dates.len() < DATES => entry.dates.extend(date::parse(&text)),
                Field::Date => {}
            }
        }
        if let Some((_, entry)) = self.entry.take_if(|(depth, _)| *depth == self.depth) {
            self.entries.push(entry);
        }
        self.depth = self.depth.saturating_sub(1);
    }

    fn entries(self) -> Result<Vec<Entry>, Wrong> {
        match (self.begun && self.has_channel, self.depth) {
            (_, 1..) => Err(Wrong::BrokenOff),
            (false, _) => Err(Wrong::Root),
            (true, 0) => Ok(self.entries),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(title: &str, dates: &[Unix]) -> Entry {
        Entry { title: title.to_owned(), dates: dates.to_vec() }
    }

    fn of(text: &str) -> Result<Vec<Entry>, String> {
        read(text.as_bytes()).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn every_form_of_feed_is_read() {
        let rss = "<?xml version='1.0'?><rss version='2.0'><channel><title>not this</title><pubDate>Thu, 01 Jan 1970 \
                   00:00:09 GMT</pubDate><item><title><![CDATA[a & b]]></title><pubDate>Thu, 01 Jan 1970 00:00:01 \
                   GMT</pubDate></item><item><media:title>no</media:title></item></channel></rss>";
        assert_eq!(of(rss), Ok(vec![entry("a & b", &[1]), entry("", &[])]));
        let rdf = "<rdf:RDF xmlns:rdf='r' xmlns:dc='d'><channel/><item><title>a</title>\
                   <dc:date>1970-01-01T00:00:02Z</dc:date></item></rdf:RDF>";
        assert_eq!(of(rdf), Ok(vec![entry("a", &[2])]));
        let atom = "<feed xmlns='http://www.w3.org/2005/Atom'><updated>1970-01-01T00:00:09Z</updated><entry>\
                    <title type='html'>a &amp;&#65;<b>B</b></title><published>1970-01-01T00:00:03Z</published>\
                    <updated>1970-01-01T00:00:04Z</updated><source><title>no</title><updated>1970-01-01T00:00:09Z\
                    </updated></source></entry></feed>";
        assert_eq!(of(atom), Ok(vec![entry("a &AB", &[3, 4])]));
        assert_eq!(of("\u{feff}<rss><channel></channel></rss>"), Ok(Vec::new()));
        assert_eq!(of("<feed/>"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_feed_is_told() {
        for text in ["", " ", "no", "<html></html>", "<rss></rss>", "<rss/>", "<feed/><feed/>"] {
            assert_eq!(of(text), Err("it begins as something else".to_owned()), "{text}");
        }
        for text in ["<feed>", "<rss><channel>", "<rss><channel><item><title>a"] {
            assert_eq!(of(text), Err("it breaks off".to_owned()), "{text}");
        }
        for text in ["<feed></rss>", "<feed><", "<feed><!-- "] {
            of(text).unwrap_err();
        }
        assert_eq!(read(b"<feed>\xff</feed>").unwrap_err().to_string(), "it is not in UTF-8");
    }

    #[test]
    fn no_entity_of_the_peers_is_expanded() {
        let laugh = |level| format!("<!ENTITY l{level} \"{}\">", format!("&l{};", level - 1).repeat(10));
        let laughs = (1..20).map(laugh).collect::<Vec<_>>().concat();
        let text = format!(
            "<!DOCTYPE feed [<!ENTITY l0 \"ha\">{laughs}<!ENTITY f SYSTEM \"file:///etc/passwd\">]>\
             <feed><entry><title>x&l19;&f;y</title></entry></feed>"
        );
        assert_eq!(of(&text), Ok(vec![entry("xy", &[])]));
    }

    #[test]
    fn neither_depth_nor_number_nor_length_is_a_burden() {
        let deep = format!("<feed>{}{}</feed>", "<a>".repeat(150_000), "</a>".repeat(150_000));
        assert_eq!(of(&deep), Ok(Vec::new()));
        let many = format!("<feed>{}</feed>", "<entry/>".repeat(120_000));
        assert_eq!(of(&many).unwrap().len(), 120_000);
        let long = format!("<feed><entry><title>{}</title></entry></feed>", "ü".repeat(500_000));
        assert!(of(&long).unwrap()[0].title.len() <= LONGEST + 3);
        let dates = "<updated>1970-01-01T00:00:01Z</updated>".repeat(20_000);
        assert_eq!(of(&format!("<feed><entry>{dates}</entry></feed>")).unwrap()[0].dates.len(), DATES);
    }

    /// Pieces of what feeds are made of, in any order.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "<rss>",
            "</rss>",
            "<channel>",
            "</channel>",
            "<item>",
            "</item>",
            "<feed>",
            "</feed>",
            "<entry>",
            "</entry>",
            "<title>",
            "</title>",
            "<updated>",
            "</updated>",
            "<updated/>",
            "<entry/>",
            "&amp;",
            "&#x110000;",
            "&#0;",
            "&x",
            "<![CDATA[",
            "]]>",
            "<!--",
            "-->",
            "<!DOCTYPE a [",
            "]>",
            "<?",
            "?>",
            "2023-11-14T22:13:20Z",
            "ü",
            "<",
            ">",
            "\"",
        ]);
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn no_order_of_what_feeds_are_made_of_makes_it_panic(text in pieces()) {
            if let Ok(entries) = read(text.as_bytes()) {
                prop_assert!(entries.len() <= text.len());
            }
        }

        #[test]
        fn a_feed_that_breaks_off_is_no_feed(cut in 0..240_usize) {
            let whole = "<?xml version=\"1.0\"?><rss version=\"2.0\"><channel><title>t</title><item><title><![CDATA[a]]>\
                         </title><pubDate>Thu, 01 Jan 1970 00:00:01 GMT</pubDate></item><item><title>b &lt; c</title>\
                         </item></channel></rss>";
            let end = whole.len();
            prop_assert!(cut >= end || read(&whole.as_bytes()[..cut]).is_err());
            prop_assert_eq!(read(whole.as_bytes()).unwrap().len(), 2);
        }
    }
}
