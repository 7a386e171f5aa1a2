//! Text to token ids and back, by the model's own tokenizer.

pub mod allowed;
pub mod find;
pub mod language_files;
mod pair;
pub mod passages;
pub mod pattern;
pub mod start;

use allowed::AllowedTokenizer;
use find::TokenizerFile;
use language_files::{LanguageFiles, NamedToken};
use serde_json::Value as Json;
use snnc_ir::diagnostic::ErrorCode;
use snnc_ir::{Diagnostic, LanguageConfig};
use start::{END_OF_TEXT, StartChoice, TokenizerHints};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Once, OnceLock};
use tokenizers::{AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// Bytes of a text that is tokenised at once, at most. Longer ones are tokenised in passages.
const WHOLE: usize = 1 << 21;

/// A tokenizer in Hugging Face's `tokenizer.json` form.
#[derive(Debug)]
pub struct Tokens {
    tokenizer: Tokenizer,
    /// The file's name in messages.
    place: String,
    /// What stands before every text, what ends one, and how a conversation is written.
    language: LanguageConfig,
    /// Rows of the network's embedding; ids beyond them are refused.
    rows: usize,
    slow: bool,
    prepends: bool,
    rewrites: bool,
    /// Ids of a word and its text, which stand before ids that continue a text where the first token of a text is another.
    word: Option<(Vec<u32>, String)>,
    /// The tokenizer to which the names of special tokens are plain text, once it is needed.
    plain: OnceLock<Box<Tokenizer>>,
}

impl Tokens {
    /// A tokenizer by its JSON alone.
    ///
    /// # Errors
    /// `json` is no tokenizer, or one with pieces that are not read.
    pub fn new(json: &[u8], place: &str) -> Result<Self, Diagnostic> {
        Self::build(json, place, &TokenizerHints::default(), &StartChoice::Auto)
    }

    /// A tokenizer with what is known of it, and what the user wants before every text.
    ///
    /// # Errors
    /// It is none, or one with pieces that are not read; a start token that it does not have.
    pub fn of(file: &TokenizerFile, start: &StartChoice) -> Result<Self, Diagnostic> {
        Self::build(&file.json, &file.place, &file.hints, start)
    }

    fn build(json: &[u8], place: &str, hints: &TokenizerHints, start: &StartChoice) -> Result<Self, Diagnostic> {
        let wrong = |what: String| Diagnostic::new(place, what).code(ErrorCode::TOKENIZER);
        let allowed = allowed::allowed(json)
            .map_err(|what| wrong(what).note("docs/cli.md lists the pieces of a tokenizer that are read"))?;
        let AllowedTokenizer { model, pieces, added_tokens, before, added, slow, prepends, rewrites, joins } = allowed;
        let tokenizer = caught(|| assembled(model, pieces, added_tokens))
            .map_err(&wrong)?
            .map_err(|e| wrong(format!("is not a tokenizer.json: {e}")))?;
        // The crate numbers them itself where they do not follow the vocabulary.
        for (content, id) in &added {
            let given = tokenizer.token_to_id(content);
            if given.map(u64::from) != Some(*id) {
                let given = given.map_or("none".into(), |id| id.to_string());
                let what = format!("gives the added token `{content}` the id {id}, but by its place it has {given}");
                return Err(
                    wrong(what).note("added tokens have the id of their vocabulary entry, or follow the vocabulary")
                );
            }
        }
        let mut language = match hints {
            TokenizerHints::Program(language) => language.clone(),
            TokenizerHints::Files(files) => usual(&tokenizer, files, before.as_deref()),
        };
        let lacking = language.start.iter().find(|id| tokenizer.id_to_token(**id).is_none());
        if let Some(id) = lacking {
            return Err(wrong(format!("has no token {id}, with which the program begins every text")));
        }
        match start {
            StartChoice::Auto => {}
            StartChoice::None => language.start.clear(),
            StartChoice::Token(token) => {
                let id = token.parse().ok().filter(|id| tokenizer.id_to_token(*id).is_some());
                let id = tokenizer.token_to_id(token).or(id);
                let id = id.ok_or_else(|| {
                    Diagnostic::new("--start", format!("the tokenizer has no token `{token}`"))
                        .code(ErrorCode::OPTION)
                        .note("name a token by its text or its id, or write `auto` or `none`")
                })?;
                language.start = vec![id];
            }
        }
        let place = place.to_string();
        let rows = usize::MAX;
        let mut tokens =
            Self { tokenizer, place, language, rows, slow, prepends, rewrites, word: None, plain: OnceLock::new() };
        if joins {
            let ids = tokens.encode("a").unwrap_or_default();
            tokens.word = tokens.decode(&ids).ok().map(|text| (ids, text));
        }
        Ok(tokens)
    }

    /// The same, but the names of special tokens in a text are plain text.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.tokenizer.set_encode_special_tokens(true);
        self
    }

    /// The same for a network whose embedding has so many rows: ids beyond them are errors.
    #[must_use]
    pub fn within(self, rows: usize) -> Self {
        Self { rows, ..self }
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// The tokenizer refuses it, or the network has no row for an id.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Diagnostic> {
        self.encode_by(&self.tokenizer, text)
    }

    fn encode_by(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Diagnostic> {
        let wrong = |what: String| {
            Diagnostic::new("", format!("the text cannot be tokenised: {what}")).code(ErrorCode::TOKENIZER)
        };
        let encoding = caught(|| tokenizer.encode_fast(text, false)).map_err(&wrong)?;
        let ids = encoding.map_err(|e| wrong(e.to_string()))?.get_ids().to_vec();
        self.known(&ids)?;
        Ok(ids)
    }

    /// Refuses ids that the network has no row for.
    fn known(&self, ids: &[u32]) -> Result<(), Diagnostic> {
        let Some(id) = ids.iter().find(|id| **id as usize >= self.rows) else { return Ok(()) };
        let token = self.tokenizer.id_to_token(*id).unwrap_or_default();
        let what = format!("the text has the token `{token}`, id {id}; the network's embedding has {} rows", self.rows);
        Err(Diagnostic::new(self.place.as_str(), what)
            .code(ErrorCode::TOKENIZER)
            .note("leave that token out of the text, or use the tokenizer of this network"))
    }

    /// Ids that stand before every text.
    pub fn start(&self) -> &[u32] {
        &self.language.start
    }

    /// Whether an id ends a text.
    pub fn ends(&self, id: u32) -> bool {
        self.language.end.contains(&id)
    }

    /// What a program remembers: what stands before every text, what ends one, and how a conversation is written.
    pub fn language(&self) -> &LanguageConfig {
        &self.language
    }

    /// What is before every text.
    ///
    /// # Errors
    /// The network has no row for it.
    pub fn beginning(&self) -> Result<Vec<u32>, Diagnostic> {
        self.known(&self.language.start)?;
        Ok(self.language.start.clone())
    }

    /// The ids of a text with the start token before them.
    ///
    /// # Errors
    /// As of `encode`.
    pub fn document(&self, text: &str) -> Result<Vec<u32>, Diagnostic> {
        let mut ids = self.beginning()?;
        if text.len() <= self.whole() {
            ids.extend(self.encode(text)?);
        } else {
            self.add_passages(text, passages::by_words, &mut ids)?;
        }
        Ok(ids)
    }

    /// The ids of a long text, a passage of whole lines at a time: much faster than at once, and the same but perhaps for
    /// spaces at the ends of passages.
    ///
    /// # Errors
    /// As of `encode`.
    pub fn corpus(&self, text: &str) -> Result<Vec<u32>, Diagnostic> {
        let mut ids = self.beginning()?;
        self.add_passages(text, passages::by_lines, &mut ids)?;
        Ok(ids)
    }

    /// The ids of a text with the start token before them, or `None` if it is long and has more than `most`: the rest is not
    /// looked at then.
    ///
    /// # Errors
    /// As of `encode`.
    pub fn document_within(&self, text: &str, most: usize) -> Result<Option<Vec<u32>>, Diagnostic> {
        if text.len() <= self.whole() {
            return self.document(text).map(Some);
        }
        let (mut ids, mut rest) = (self.beginning()?, text);
        while let Some(end) = passages::by_words(rest, true).filter(|end| *end > 0) {
            let (passage, after) = rest.split_at(end);
            ids.extend(self.passage(passage, rest.len() == text.len())?);
            if ids.len() > most {
                return Ok(None);
            }
            rest = after;
        }
        Ok(Some(ids))
    }

    fn add_passages(&self, text: &str, cut: PassageEnd, ids: &mut Vec<u32>) -> Result<(), Diagnostic> {
        let mut rest = text;
        while let Some(end) = cut(rest, true).filter(|end| *end > 0) {
            let (passage, after) = rest.split_at(end);
            ids.extend(self.passage(passage, rest.len() == text.len())?);
            rest = after;
        }
        Ok(())
    }

    /// The ids of a passage of a text; `first`: nothing is before it.
    ///
    /// # Errors
    /// As of `encode`.
    pub fn passage(&self, passage: &str, first: bool) -> Result<Vec<u32>, Diagnostic> {
        self.encode(self.within_text(passage, first))
    }

    /// A passage as it is tokenised: the mark that is put before a text stands for the space at which the text was cut.
    fn within_text<'a>(&self, passage: &'a str, first: bool) -> &'a str {
        if self.prepends && !first { passage.strip_prefix(' ').unwrap_or(passage) } else { passage }
    }

    /// The same where the names of special tokens are plain text.
    ///
    /// # Errors
    /// As of `encode`.
    pub fn plain_passage(&self, passage: &str, first: bool) -> Result<Vec<u32>, Diagnostic> {
        let plain = self.plain.get_or_init(|| {
            let mut tokenizer = self.tokenizer.clone();
            tokenizer.set_encode_special_tokens(true);
            Box::new(tokenizer)
        });
        self.encode_by(plain, self.within_text(passage, first))
    }

    /// Names of special tokens, the longest first.
    pub fn special_names(&self) -> Vec<String> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let special = added.into_values().filter(|token| token.special && !token.content.is_empty());
        let mut names: Vec<String> = special.map(|token| token.content).collect();
        names.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        names
    }

    /// Bytes of a text that is tokenised at once.
    fn whole(&self) -> usize {
        if self.slow { passages::CUT } else { WHOLE }
    }

    /// The text of ids.
    ///
    /// # Errors
    /// The tokenizer refuses them.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Diagnostic> {
        let wrong =
            |what: String| Diagnostic::new("", format!("ids cannot be decoded: {what}")).code(ErrorCode::TOKENIZER);
        caught(|| self.tokenizer.decode(ids, false)).map_err(&wrong)?.map_err(|e| wrong(e.to_string()))
    }

    /// The text of ids that continue a text: with the space before the first word, where there is one.
    ///
    /// # Errors
    /// As of `decode`.
    pub fn continuation(&self, ids: &[u32]) -> Result<String, Diagnostic> {
        let Some((word, before)) = &self.word else { return self.decode(ids) };
        let text = self.decode(&[word, ids].concat())?;
        text.strip_prefix(before.as_str()).map_or_else(|| self.decode(ids), |text| Ok(text.into()))
    }

    /// Whether the text of some ids may change when others follow, so that it is not to be shown before the last.
    pub fn rewrites(&self) -> bool {
        self.rewrites
    }

    /// Entries of the vocabulary.
    pub fn len(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Whether the vocabulary has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is to be said of entries that the network has no row for.
    pub fn excess(&self) -> Option<String> {
        let (entries, rows) = (self.len(), self.rows);
        (entries > rows).then(|| {
            format!(
                "{}: has {entries} entries, the network's embedding has {rows} rows; a text with one of the others is refused",
                self.place
            )
        })
    }
}

/// A tokenizer of its pieces. The crate reads it whole as well, but copies the vocabulary four times to find out which model it is.
fn assembled(mut model: Json, pieces: [Json; 3], added_tokens: Json) -> Result<Tokenizer, tokenizers::Error> {
    let model = if model["type"] == "BPE" {
        // The crate asks for a borrowed name, which a value that is taken apart does not have.
        model.as_object_mut().and_then(|model| model.remove("type"));
        ModelWrapper::BPE(serde_json::from_value(model)?)
    } else {
        serde_json::from_value(model)?
    };
    let mut tokenizer = Tokenizer::new(model);
    let [normalizer, pre_tokenizer, decoder] = pieces;
    tokenizer.with_normalizer(serde_json::from_value::<Option<NormalizerWrapper>>(normalizer)?)?;
    tokenizer.with_pre_tokenizer(serde_json::from_value::<Option<PreTokenizerWrapper>>(pre_tokenizer)?);
    tokenizer.with_decoder(serde_json::from_value::<Option<DecoderWrapper>>(decoder)?);
    tokenizer.add_tokens(serde_json::from_value::<Vec<AddedToken>>(added_tokens)?)?;
    Ok(tokenizer)
}

/// Where the first passage of a text ends; `None`: more of the text is needed.
pub type PassageEnd = fn(&str, bool) -> Option<usize>;

/// What stands before texts and what ends them: by the files beside the tokenizer, by its template, by the tokens' names.
fn usual(tokenizer: &Tokenizer, files: &LanguageFiles, before: Option<&[String]>) -> LanguageConfig {
    let id = |token: &NamedToken| match token {
        NamedToken::Text(text) => tokenizer.token_to_id(text),
        NamedToken::Id(id) => tokenizer.id_to_token(*id).map(|_| *id),
    };
    let end_of_text = tokenizer.token_to_id(END_OF_TEXT);
    let named = files.bos.iter().find_map(id);
    let template = || before.and_then(|all| all.iter().map(|token| tokenizer.token_to_id(token)).collect());
    let start: Vec<u32> = match files.add_bos {
        Some(false) => Vec::new(),
        Some(true) if named.is_some() => named.into_iter().collect(),
        _ => {
            let named = named.filter(|id| !opens_messages(tokenizer, files, *id));
            template().unwrap_or_else(|| named.or(end_of_text).into_iter().collect())
        }
    };
    let mut end: Vec<u32> = files.eos.iter().filter_map(id).chain(named).chain(start.iter().copied()).collect();
    if end.is_empty() {
        end.extend(end_of_text.or_else(|| tokenizer.token_to_id("</s>")));
    }
    end.sort_unstable();
    end.dedup();
    let chat_template = files.chat_template.clone().unwrap_or_default();
    LanguageConfig { start, end, chat_template, special_tokens: files.special_tokens.clone() }
}

/// Whether the chat template writes a token itself: it then opens messages, and no texts.
fn opens_messages(tokenizer: &Tokenizer, files: &LanguageFiles, id: u32) -> bool {
    let token = tokenizer.id_to_token(id).unwrap_or_default();
    !token.is_empty() && files.chat_template.as_ref().is_some_and(|template| template.contains(&token))
}

thread_local! {
    /// Whether this thread is inside the tokenizers crate, whose panics become errors.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs code of the tokenizers crate. A panic there is an error, and says nothing on standard error.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !INSIDE.get() {
                usual(info);
            }
        }));
    });
    let before = INSIDE.replace(true);
    // What the crate leaves behind is used no more, or holds no state but caches.
    let done = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(before);
    done.map_err(|_| "the tokenizer has pieces that do not fit each other".into())
}
