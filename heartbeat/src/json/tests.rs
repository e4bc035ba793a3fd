//! Reader and writer against `serde_json`.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::*;

fn read<'a, T>(text: &'a [u8], read: impl FnOnce(&mut Reader<'a>) -> Result<T, Syntax>) -> Result<T, Syntax> {
    let mut reader = Reader::new(text)?;
    let value = read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Every character as an escape, in surrogate pairs where it needs two.
fn escaped(text: &str) -> String {
    let units: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
    format!("\"{}\"", units.concat())
}

proptest! {
    #[test]
    fn numbers_are_written_and_read_as_serde_json_does(number: u64) {
        let mut line = Vec::new();
        write_number(&mut line, number);
        prop_assert_eq!(&line, &serde_json::to_vec(&number).unwrap());
        prop_assert_eq!(read(&line, Reader::number), Ok(Some(number)));
    }

    #[test]
    fn strings_are_written_so_that_serde_json_reads_them(text: String) {
        let mut line = Vec::new();
        write_string(&mut line, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&line).unwrap(), text);
    }

    #[test]
    fn strings_that_serde_json_writes_are_read(text: String) {
        let line = serde_json::to_vec(&text).unwrap();
        prop_assert_eq!(read(&line, Reader::string), Ok(Some(text.as_str().into())));
        let line = escaped(&text);
        prop_assert_eq!(read(line.as_bytes(), Reader::string), Ok(Some(text.as_str().into())));
    }

    /// Near to JSON rather than random, so that both answers are common.
    #[test]
    fn a_text_is_json_here_exactly_where_it_is_for_serde_json(
        parts in vec(
            select(vec![
                "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"\\n\"", "\"\\ud83e\\udd80\"", "\\", "\\u00", "\\u12g4",
                "\"\\ud800\"", "\"\\udc00x\"", "true", "false", "null", "nul", "0", "1", "-", "-0", "01", "1.5", ".",
                "e", "1e5", "E+", "2", " ", "\n", "\t", "\u{b}", "\u{7f}", "é", "\"🦀\"", "\"a\":1", "\"b\":[",
            ]),
            0..9,
        ),
    ) {
        let text = parts.concat();
        let ours = read(text.as_bytes(), Reader::skip);
        let theirs = serde_json::from_str::<Value>(&text);
        // Only serde_json minds how large a number is.
        let too_large = theirs.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range"));
        prop_assert!(too_large || ours.is_ok() == theirs.is_ok(), "{}: {:?}, {:?}", text, ours, theirs);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..60)) {
        for wanted in [Reader::skip, |reader: &mut Reader<'_>| reader.number().map(drop), |reader: &mut Reader<'_>| {
            reader.string().map(drop)
        }] {
            let theirs = serde_json::from_slice::<Value>(&bytes);
            prop_assert!(read(&bytes, wanted).is_err() || theirs.is_ok());
        }
    }
}

#[test]
fn the_ends_of_the_range_of_numbers_are_read() {
    for (text, number) in [
        ("0", Some(0)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("99999999999999999999999", None),
        ("-0", None),
        ("1.0", None),
        ("1e3", None),
        ("\"1\"", None),
        ("[1]", None),
    ] {
        assert_eq!(read(text.as_bytes(), Reader::number), Ok(number), "{text}");
    }
}

#[test]
fn a_value_of_every_kind_is_passed_over() {
    for text in [
        "{}",
        "[]",
        "[[], {\"a\": {}, \"b\": 1}]",
        "\"\"",
        "\"a\\n\"",
        "true",
        "false",
        "null",
        "0",
        "-0",
        "10",
        "-1.5",
        "0.25",
        "1e5",
        "2E-7",
        "10.5e+12",
        " [ 1 , \"\" ]\n",
    ] {
        assert!(serde_json::from_str::<Value>(text).is_ok(), "{text} is no JSON");
        assert_eq!(read(text.as_bytes(), Reader::skip), Ok(()), "{text}");
    }
}

/// The reader looks at eight bytes at a time.
#[test]
fn a_string_is_read_alike_wherever_in_it_a_character_stands() {
    for place in 0..24 {
        for byte in 0..0x80 {
            let mut line = *b"\"xxxxxxxxxxxxxxxxxxxxxxxx\"";
            line[1 + place] = byte;
            let ours = read(&line, Reader::string).ok().map(|text| text.unwrap().into_owned());
            assert_eq!(ours, serde_json::from_slice(&line).ok(), "{byte:#x} at {place}");
        }
    }
}

#[test]
fn what_is_nearly_json_is_refused() {
    for text in [
        "[1 2]",
        "[1,]",
        "[,1]",
        "[1,,2]",
        "[",
        "]",
        "[1",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\"}",
        "{\"a\" 1}",
        "{\"a\":}",
        "{a:1}",
        "{1:1}",
        "{\"a\":1",
        "'a'",
        "tru",
        "True",
        "nulll",
        "1 1",
        "-",
        "1.e1",
        "1e",
        "\"a",
        "\"\\x\"",
        "\"\\u00\"",
        "\"\\u+123\"",
        "//",
        "[1]//",
        "\u{feff}1",
    ] {
        assert!(serde_json::from_str::<Value>(text).is_err(), "{text} is JSON");
        assert!(read(text.as_bytes(), Reader::skip).is_err(), "{text}");
    }
    for control in '\0'..' ' {
        assert!(read(format!("\"a{control}b\"").as_bytes(), Reader::string).is_err(), "{control:?}");
    }
    assert!(read("\" \u{7f}\"".as_bytes(), Reader::string).is_ok(), "JSON allows all from the space on");
}

#[test]
fn half_of_a_surrogate_pair_is_no_character() {
    for text in [
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\ud800""#,
        r#""\ud800x""#,
        r#""\ud800\n""#,
        r#""\udbff\ue000""#,
    ] {
        assert!(read(text.as_bytes(), Reader::string).is_err(), "{text}");
    }
    let crab = read(br#""\ud83e\udd80""#, Reader::string);
    assert_eq!(crab.unwrap().as_deref(), Some("🦀"));
}

#[test]
fn every_control_character_is_written_as_an_escape_and_every_escape_is_read() {
    let text: String = ('\0'..='\u{7f}').collect();
    let mut line = Vec::new();
    write_string(&mut line, &text);
    assert!(!line.iter().any(|byte| *byte < b' '));
    assert_eq!(serde_json::from_slice::<String>(&line).unwrap(), text);
    for line in [line, serde_json::to_vec(&text).unwrap(), escaped(&text).into_bytes()] {
        assert_eq!(read(&line, Reader::string), Ok(Some(text.as_str().into())));
    }
    assert_eq!(read(br#""\/""#, Reader::string), Ok(Some("/".into())));
}

#[test]
fn a_syntax_error_says_where() {
    for (text, told) in [
        (&br#"{"a":1,}"#[..], "no string at byte 7"),
        (br#"["ab\x"]"#, "an unknown escape at byte 5"),
        (br#"["ab\u12"]"#, "no four hexadecimal digits at byte 6"),
        (b"[true, tru]", "no value at byte 7"),
        (b"[1.]", "no digit at byte 3"),
        (b"1 1", "text after its end at byte 2"),
        (b"[\"\xff\"]", "bytes that are not UTF-8 at byte 2"),
    ] {
        let failed = read(text, Reader::skip).unwrap_err();
        assert_eq!(failed.to_string(), format!("it is not JSON: {told}"));
    }
}
