//! Short texts that operators give: titles, venues, sections, grades.

use unicode_normalization::UnicodeNormalization;

/// A text of 1 to [`Label::MAX_CHARS`] characters (Unicode code points) in NFC, without blank ends. At least one of them is
/// visible, and none is a control character, a line break or a bidirectional control.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// A text that is no [`Label`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// It is blank or too long.
    #[error("must have 1 to {} characters, counted in NFC and without blank ends", Label::MAX_CHARS)]
    Length,
    /// It has a control character, or a line or paragraph separator.
    #[error("must not contain control characters or line breaks; remove them")]
    Control,
    /// It has a character that reorders the text around it.
    #[error(
        "must not contain bidirectional controls (U+202A to U+202E, U+2066 to U+206F); remove them and write the text in \
         its logical order"
    )]
    Bidirectional,
    /// Nothing of it shows.
    #[error("must contain a visible character, not only invisible ones such as zero-width spaces")]
    Invisible,
}

impl Label {
    /// The longest label, in characters.
    pub const MAX_CHARS: usize = 200;

    /// Normalises (NFC), trims and checks a text that a client sent.
    ///
    /// Joiners, direction marks, variation selectors and the like are kept in a text that shows something: emoji, Persian
    /// and Hebrew need them.
    ///
    /// # Errors
    /// [`InvalidLabel`] says what is wrong.
    pub fn new(text: &str) -> Result<Self, InvalidLabel> {
        let normalised: String = text.nfc().collect();
        let label = Self::stored(&normalised)?;
        if label.0.contains(['\u{2028}', '\u{2029}']) {
            return Err(InvalidLabel::Control);
        }
        if label.0.contains(is_bidirectional_control) {
            return Err(InvalidLabel::Bidirectional);
        }
        if label.0.chars().all(|letter| letter.is_whitespace() || is_invisible(letter)) {
            return Err(InvalidLabel::Invisible);
        }
        Ok(label)
    }

    /// Restores a label from storage. Texts that were stored before [`Label::new`] became stricter are kept as they are.
    ///
    /// # Errors
    /// [`InvalidLabel`] for a text that never was a label: blank, too long, or with control characters.
    pub fn stored(text: &str) -> Result<Self, InvalidLabel> {
        let text = text.trim();
        if text.is_empty() || text.chars().count() > Self::MAX_CHARS {
            return Err(InvalidLabel::Length);
        }
        if text.contains(char::is_control) {
            return Err(InvalidLabel::Control);
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Embeddings, overrides and isolates, and the deprecated format characters next to them. The marks U+200E, U+200F and U+061C
/// are none: they reorder nothing but the punctuation next to them.
const fn is_bidirectional_control(letter: char) -> bool {
    matches!(letter, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{206F}')
}

/// Characters without a glyph of their own: `Default_Ignorable_Code_Point` of Unicode 16, the other format controls that have
/// none, and blanks that Unicode counts as letters or symbols.
const fn is_invisible(letter: char) -> bool {
    matches!(
        letter,
        '\u{00AD}'
            | '\u{034F}'
            | '\u{061C}'
            | '\u{115F}'..='\u{1160}'
            | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}'
            | '\u{13430}'..='\u{1343F}'
            | '\u{16FE4}'
            | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D159}'
            | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_normalization::is_nfc;

    use super::*;

    #[test]
    fn a_label_is_trimmed_and_bounded() {
        assert_eq!(Label::new("  Hall A ").unwrap().as_str(), "Hall A");
        assert_eq!(Label::new(&"가".repeat(200)).unwrap().as_str().chars().count(), 200);
        for bad in ["", "   ", &"x".repeat(201)] {
            assert_eq!(Label::new(bad), Err(InvalidLabel::Length), "{bad:?}");
        }
        for bad in ["a\0b", "a\nb", "a\u{85}b", "a\u{7f}", "a\u{2028}b", "a\u{2029}b"] {
            assert_eq!(Label::new(bad), Err(InvalidLabel::Control), "{bad:?}");
        }
    }

    #[test]
    fn equal_texts_are_equal_labels_whatever_their_form() {
        for (sent, stored) in [
            ("Cafe\u{301}", "Caf\u{e9}"),
            ("\u{1100}\u{1161}", "가"),
            ("\u{212B}", "\u{c5}"),
            // NFC is not NFKC: these stay as they are.
            ("ﬁ ２ ①", "ﬁ ２ ①"),
        ] {
            assert_eq!(Label::new(sent).unwrap().as_str(), stored);
            assert_eq!(Label::new(sent), Label::new(stored));
        }
    }

    #[test]
    fn characters_are_counted_after_normalisation() {
        // Three letters sent, one stored; and one sent, three stored.
        assert!(Label::new(&"\u{1112}\u{1161}\u{11ab}".repeat(200)).is_ok());
        assert!(Label::new(&"\u{1D160}".repeat(66)).is_ok());
        assert_eq!(Label::new(&"\u{1D160}".repeat(67)), Err(InvalidLabel::Length));
    }

    #[test]
    fn a_text_that_shows_nothing_is_refused() {
        for invisible in [
            "\u{200B}",
            "\u{3164}",
            "\u{115F}\u{1160}",
            "\u{FFA0}",
            "\u{FE0F}",
            "\u{E0020}\u{E007F}",
            "\u{AD}",
            "\u{2060}",
            "\u{FEFF}",
            "\u{200D}\u{200C}",
            "\u{200E}\u{200F}\u{61C}",
            "\u{2800}",
            "\u{34F}",
            "\u{180E}",
            "\u{1D159}",
            "\u{200B} \u{A0} \u{3164}",
        ] {
            assert_eq!(Label::new(invisible), Err(InvalidLabel::Invisible), "{invisible:?}");
            let seen = format!("{invisible}A");
            assert_eq!(Label::new(&seen).unwrap().as_str(), seen, "beside a letter");
        }
    }

    #[test]
    fn a_text_that_reorders_what_is_around_it_is_refused() {
        for control in ('\u{202A}'..='\u{202E}').chain('\u{2066}'..='\u{2069}') {
            for text in [format!("{control}"), format!("Hall {control}A"), format!("{control}Hall\u{2069}")] {
                assert_eq!(Label::new(&text), Err(InvalidLabel::Bidirectional), "{text:?}");
            }
        }
    }

    #[test]
    fn what_scripts_and_emoji_need_is_kept() {
        for text in [
            "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}",
            "می\u{200C}خواهم",
            "🎟\u{FE0F}",
            "\u{1F3F4}\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "ירושלים (C++)\u{200E}",
            "क्\u{200D}ष",
            "\u{301}",
        ] {
            assert_eq!(Label::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_was_stored_before_is_read_as_it_is() {
        for old in ["Cafe\u{301}", "\u{3164}", "Hall \u{202E}A"] {
            assert_eq!(Label::stored(old).unwrap().as_str(), old);
        }
        for never in ["", " ", "a\0b", &"x".repeat(201)] {
            assert!(Label::stored(never).is_err(), "{never:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_label_in_nfc_without_blank_ends_or_none(
            text in prop_oneof![
                ".*",
                "[ \t]{0,3}[a-c가 ]{0,210}[ \u{3000}]{0,3}",
                "[a-c\u{0}\n\u{85}가]{0,9}",
                "[e\u{301}\u{1100}\u{1161}\u{200B}\u{202E}\u{3164} ]{0,9}",
            ],
        ) {
            let normalised: String = text.nfc().collect();
            let bare = normalised.trim();
            let is_label = (1..=200).contains(&bare.chars().count())
                && !bare.contains(char::is_control)
                && !bare.contains(['\u{2028}', '\u{2029}'])
                && !bare.contains(is_bidirectional_control)
                && bare.contains(|letter: char| !letter.is_whitespace() && !is_invisible(letter));
            let read = Label::new(&text);
            prop_assert_eq!(read.as_ref().ok().map(Label::as_str), is_label.then_some(bare));
            if let Ok(label) = read {
                prop_assert!(is_nfc(label.as_str()));
                prop_assert_eq!(Label::new(label.as_str()), Ok(label.clone()), "again");
                prop_assert_eq!(Label::stored(label.as_str()), Ok(label));
            }
        }
    }
}
