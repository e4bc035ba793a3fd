//! Texts in the patterns of Redis (`SCAN … MATCH`, `PSUBSCRIBE`): the rules are those of its `stringmatchlen`.

/// A text in a pattern, as it stands.
pub fn literally(text: &str) -> String {
    let special = |character: char| matches!(character, '*' | '?' | '[' | ']' | '\\' | '^');
    text.chars()
        .flat_map(|character| special(character).then_some('\\').into_iter().chain([character]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_pattern_matches_itself_alone() {
        assert_eq!(literally("django_q:a*b?[c]\\^:cluster"), "django_q:a\\*b\\?\\[c\\]\\\\\\^:cluster");
        assert_eq!(literally("größe"), "größe");
    }
}
