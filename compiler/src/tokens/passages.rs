//! Long texts in passages: each is tokenised alone, so that memory does not grow with the text.

/// Bytes of a long text that are tokenised at once, at least.
const PASSAGE: usize = 1 << 14;

/// Bytes of a passage that ends at a line's end, at most; longer lines are cut between words.
pub const LINE: usize = 1 << 18;

/// Bytes of a passage of a line that is cut, about.
pub const CUT: usize = 1 << 16;

/// Where the first passage of whole lines ends. `all`: the text ends with `text`.
///
/// A line that is too long is cut before a space between two words, since words with the space before them are tokenised
/// alone; then before any space; then anywhere.
pub fn by_lines(text: &str, all: bool) -> Option<usize> {
    let from = text.ceil_char_boundary(PASSAGE.min(text.len()));
    let end = text[from..].find('\n').map(|line| from + line + 1).filter(|end| *end <= LINE);
    match end {
        None if text.len() <= LINE => all.then_some(text.len()),
        None => Some(between_words(text, CUT)),
        end => end,
    }
}

/// Where the first passage ends that needs no line's end. `all`: the text ends with `text`.
pub fn by_words(text: &str, all: bool) -> Option<usize> {
    match text.len() {
        length if length > CUT => Some(between_words(text, CUT)),
        length => all.then_some(length),
    }
}

/// The last place in the first `most` bytes, but not in their first half, where a text is best cut.
fn between_words(text: &str, most: usize) -> usize {
    let most = text.floor_char_boundary(most);
    let least = text.ceil_char_boundary(most / 2);
    let places = || text[least..most].char_indices().rev().map(|(at, c)| (least + at, c));
    let letters = |at: usize| {
        text[..at].chars().next_back().is_some_and(char::is_alphanumeric)
            && text[at + 1..].chars().next().is_some_and(char::is_alphanumeric)
    };
    let spaced = |at: usize| text[..at].chars().next_back().is_some_and(|c| !c.is_whitespace());
    let word = places().find(|&(at, c)| c == ' ' && letters(at));
    word.or_else(|| places().find(|&(at, c)| c.is_whitespace() && spaced(at))).map_or(most, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passages(mut text: &str, cut: fn(&str, bool) -> Option<usize>) -> Vec<&str> {
        let mut all = Vec::new();
        while let Some(end) = cut(text, true).filter(|end| *end > 0) {
            all.push(&text[..end]);
            text = &text[end..];
        }
        all
    }

    #[test]
    fn passages_are_the_text() {
        let words = "abcd ".repeat(100_000);
        let lines = "abcd efgh\n".repeat(30_000);
        let none = "é".repeat(300_000);
        let spaces = " ".repeat(300_000);
        for text in [&words, &lines, &none, &spaces, "", "x"] {
            for cut in [by_lines, by_words] {
                let all = passages(text, cut);
                assert_eq!(all.concat(), *text);
                assert!(all.iter().all(|passage| passage.len() <= LINE));
            }
        }
        assert!(passages(&words, by_words)[1].starts_with(" abcd"));
        assert!(passages(&lines, by_lines)[0].ends_with('\n'));
    }

    #[test]
    fn lines_are_whole_as_long_as_they_fit() {
        let text = format!("{}\n{}\n", "a".repeat(100_000), "b".repeat(20_000));
        assert_eq!(passages(&text, by_lines).len(), 2);
    }
}
