//! Short texts that operators give: titles, venues, sections, grades.

/// A text of 1 to [`Label::MAX_CHARS`] characters, without control characters or blank ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// A text that is no [`Label`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {} characters, none of them a control character", Label::MAX_CHARS)]
pub struct InvalidLabel;

impl Label {
    /// The longest label, in characters.
    pub const MAX_CHARS: usize = 200;

    /// Trims and checks a text.
    ///
    /// # Errors
    /// [`InvalidLabel`] when it is blank, too long, or has control characters.
    pub fn new(text: &str) -> Result<Self, InvalidLabel> {
        let text = text.trim();
        let fits = !text.is_empty() && text.chars().count() <= Self::MAX_CHARS;
        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidLabel)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_label_is_trimmed_and_bounded() {
        assert_eq!(Label::new("  Hall A ").unwrap().as_str(), "Hall A");
        assert_eq!(Label::new(&"가".repeat(200)).unwrap().as_str().chars().count(), 200);
        for bad in ["", "   ", "a\0b", "a\nb", &"x".repeat(201)] {
            assert_eq!(Label::new(bad), Err(InvalidLabel), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_label_without_its_blank_ends_or_none(
            text in prop_oneof![".*", "[ \t]{0,3}[a-c가 ]{0,210}[ \u{3000}]{0,3}", "[a-c\u{0}\n\u{85}가]{0,9}"],
        ) {
            let bare = text.trim();
            let is_label = (1..=200).contains(&bare.chars().count()) && !bare.contains(char::is_control);
            let expected = if is_label { Ok(bare) } else { Err(&InvalidLabel) };
            let read = Label::new(&text);
            prop_assert_eq!(read.as_ref().map(Label::as_str), expected);
        }
    }
}
