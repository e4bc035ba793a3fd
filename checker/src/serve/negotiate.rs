//! Which format an answer is given in: `?format=`, else `Accept`, else the first there is.
//!
//! Pure, and never an error of ours: what cannot be read of a header is as if it were not there.

use super::formats::Form;

/// How well a media range fits a format, and how much it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Fit {
    quality: f32,
    /// 2 the type itself, 1 `text/*`, 0 `*/*`.
    exact: u8,
}

/// One element of `Accept`.
struct Range<'h> {
    kind: &'h str,
    subtype: &'h str,
    quality: f32,
}

/// The format to answer in; nothing where none of them is wanted.
pub fn choose<'f, T>(forms: &'f [Form<T>], query: Option<&str>, accept: &[&[u8]]) -> Option<&'f Form<T>> {
    if let Some(name) = query.and_then(format) {
        return forms.iter().find(|form| form.name == name);
    }
    let texts = accept.iter().filter_map(|value| std::str::from_utf8(value).ok());
    let ranges: Vec<_> = texts.flat_map(|text| text.split(',')).filter_map(range).collect();
    if ranges.is_empty() {
        return forms.first();
    }
    let mut best: Option<(Fit, &Form<T>)> = None;
    for form in forms {
        let Some(fit) = fit(form.media, &ranges).filter(|fit| fit.quality > 0.0) else { continue };
        if best.is_none_or(|(before, _)| fit > before) {
            best = Some((fit, form));
        }
    }
    best.map(|(_, form)| form)
}

/// What `format=` says. The `+` of `health+json` means a space there, which people do not think of.
fn format(query: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == "format").map(|(_, value)| value.replace(' ', "+"))
}

fn range(element: &str) -> Option<Range<'_>> {
    let mut parts = element.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    if kind.is_empty() || subtype.is_empty() || kind == "*" && subtype != "*" {
        return None;
    }
    let mut quality = 1.0;
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        if key.trim().eq_ignore_ascii_case("q") {
            quality = value.trim().parse().ok().filter(|quality| (0.0..=1.0).contains(quality))?;
        }
    }
    Some(Range { kind, subtype, quality })
}

/// The most exact range decides.
fn fit(media: &str, ranges: &[Range<'_>]) -> Option<Fit> {
    let (kind, subtype) = media.split_once('/')?;
    let fits = ranges.iter().filter_map(|range| {
        let exact = match (range.kind, range.subtype) {
            ("*", _) => 0,
            (own, "*") if own.eq_ignore_ascii_case(kind) => 1,
            (own, rest) if own.eq_ignore_ascii_case(kind) && rest.eq_ignore_ascii_case(subtype) => 2,
            _ => return None,
        };
        Some(Fit { quality: range.quality, exact })
    });
    fits.reduce(|best, fit| if (fit.exact, fit.quality) > (best.exact, best.quality) { fit } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::formats::Failing;

    fn form(name: &'static str, media: &'static str) -> Form<()> {
        Form { name, media, content_type: media, failing: Failing::Told, print: |()| String::new() }
    }

    fn chosen(query: Option<&str>, accept: &[&[u8]]) -> Option<&'static str> {
        let forms = [
            form("json", "application/json"),
            form("text", "text/plain"),
            form("html", "text/html"),
            form("health+json", "application/health+json"),
        ];
        choose(&forms, query, accept).map(|form| form.name)
    }

    #[test]
    fn without_a_wish_it_is_the_first_and_so_with_what_cannot_be_read() {
        for accept in [
            &[][..],
            &[&b""[..]],
            &[&b"*/*"[..]],
            &[&b"garbage"[..]],
            &[&b"\xff\xfe"[..]],
            &[&b",;,/,a/,/b,*/plain"[..]],
            &[&b"text/plain;q=x"[..]],
            &[&b"text/plain;q=2"[..], b"\xff/\xff"],
        ] {
            assert_eq!(chosen(None, accept), Some("json"), "{accept:?}");
        }
    }

    #[test]
    fn the_most_wanted_is_given_and_of_those_alike_the_one_named_most_exactly() {
        for (accept, name) in [
            (&b"text/plain"[..], Some("text")),
            (b"TEXT/Plain; charset=utf-8", Some("text")),
            (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some("html")),
            (b"application/health+json, application/json;q=0.9", Some("health+json")),
            (b"application/json;q=0.1, text/*;q=0.2", Some("text")),
            (b"text/*, text/plain;q=0", Some("html")),
            (b"*/*, application/json;q=0", Some("text")),
            (b"image/png", None),
            (b"application/json;q=0", None),
            (b"image/png, */*;q=0.1", Some("json")),
            (b"text/plain;version=0.0.4;q=0.3", Some("text")),
        ] {
            assert_eq!(chosen(None, &[accept]), name, "{}", String::from_utf8_lossy(accept));
        }
        assert_eq!(chosen(None, &[b"image/png", b"text/html"]), Some("html"));
    }

    #[test]
    fn the_query_wins_and_an_unknown_word_is_refused() {
        for (query, name) in [
            ("format=text", Some("text")),
            ("a=b&format=health+json&format=html", Some("health+json")),
            ("format=health%2Bjson", Some("health+json")),
            ("format=xml", None),
            ("format=", None),
            ("format=%ff", None),
            ("nothing=1", Some("html")),
            ("&&=&%", Some("html")),
        ] {
            assert_eq!(chosen(Some(query), &[b"text/html"]), name, "{query}");
        }
    }
}
