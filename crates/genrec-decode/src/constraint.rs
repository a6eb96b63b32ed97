//! Which tokens may follow which.

use std::ops::Range;

use sid_index::{Groups, SidVocab};

use crate::error::{DecodeError, Result};

/// An automaton over tokens that says which sequences may be generated.
///
/// The state is a small value that the decoder copies for every hypothesis. Two rules make a constraint sound:
/// [`for_each_allowed`](Self::for_each_allowed) lists exactly the tokens that [`accept`](Self::accept) takes, and some
/// complete sequence can be reached from every state that can itself be reached. A constraint that breaks the second one
/// has *dead ends*: hypotheses that run into them are dropped, and a user may get fewer than asked for, or none.
///
/// ```
/// use genrec_decode::Constraint;
///
/// /// Even tokens below ten, three of them.
/// struct Evens;
///
/// impl Constraint for Evens {
///     type State = usize;
///
///     fn start(&self) -> usize {
///         0
///     }
///     fn accept(&self, taken: &usize, token: u32) -> Option<usize> {
///         (*taken < 3 && token < 10 && token % 2 == 0).then_some(taken + 1)
///     }
///     fn for_each_allowed(&self, taken: &usize, f: &mut dyn FnMut(u32)) {
///         if *taken < 3 {
///             (0..10).step_by(2).for_each(f);
///         }
///     }
///     fn is_complete(&self, taken: &usize) -> bool {
///         *taken == 3
///     }
/// }
/// assert_eq!(Evens.accept(&0, 4), Some(1));
/// assert_eq!(Evens.accept(&0, 5), None);
/// ```
pub trait Constraint: Sync {
    /// What is remembered of the tokens taken so far.
    type State: Clone + Send + Sync;

    /// The state before the first token.
    fn start(&self) -> Self::State;

    /// The state after one more token, or `None` when the token may not follow.
    fn accept(&self, state: &Self::State, token: u32) -> Option<Self::State>;

    /// Calls `f` once with every token that may follow, in any order.
    fn for_each_allowed(&self, state: &Self::State, f: &mut dyn FnMut(u32));

    /// The same in groups: a first token, and a bit for each of the 64 from it on. Searches ask so, since they turn most tokens
    /// away and can do that to 64 at once. By default those of [`for_each_allowed`](Self::for_each_allowed), gathered, which
    /// are few when they ascend.
    fn for_each_group(&self, state: &Self::State, f: &mut dyn FnMut(u32, u64)) {
        let mut groups = Groups::default();
        self.for_each_allowed(state, &mut |token| groups.push(token, &mut |first, group| f(first, group)));
        groups.finish(f);
    }

    /// Told of the states of all prefixes before a step asks about the first: a constraint in much memory may begin to fetch
    /// it. By default nothing.
    fn prepare(&self, _state: &Self::State) {}

    /// Whether the tokens taken so far are a whole sequence. Decoders do not continue it.
    fn is_complete(&self, state: &Self::State) -> bool;

    /// Both constraints at once: a token may follow when both accept it, and a sequence is complete when both say so.
    ///
    /// Meant for rules about the vocabulary. It looks one token ahead and no further, so the conjunction of two
    /// constraints without dead ends can have some. To leave out items, use
    /// [`Catalogue::excluding`](crate::Catalogue::excluding), which has none. Put the constraint that allows fewer tokens
    /// first: its tokens are listed, the other is asked about each.
    fn and<C: Constraint>(self, other: C) -> And<Self, C>
    where
        Self: Sized,
    {
        And { first: self, second: other }
    }
}

impl<C: Constraint + ?Sized> Constraint for &C {
    type State = C::State;

    fn start(&self) -> Self::State {
        (**self).start()
    }

    fn accept(&self, state: &Self::State, token: u32) -> Option<Self::State> {
        (**self).accept(state, token)
    }

    fn for_each_allowed(&self, state: &Self::State, f: &mut dyn FnMut(u32)) {
        (**self).for_each_allowed(state, f);
    }

    fn for_each_group(&self, state: &Self::State, f: &mut dyn FnMut(u32, u64)) {
        (**self).for_each_group(state, f);
    }

    fn prepare(&self, state: &Self::State) {
        (**self).prepare(state);
    }

    fn is_complete(&self, state: &Self::State) -> bool {
        (**self).is_complete(state)
    }
}

/// Two constraints at once; made by [`Constraint::and`].
#[derive(Debug, Clone)]
pub struct And<A, B> {
    first: A,
    second: B,
}

impl<A: Constraint, B: Constraint> Constraint for And<A, B> {
    type State = (A::State, B::State);

    fn start(&self) -> Self::State {
        (self.first.start(), self.second.start())
    }

    fn accept(&self, state: &Self::State, token: u32) -> Option<Self::State> {
        Some((self.first.accept(&state.0, token)?, self.second.accept(&state.1, token)?))
    }

    fn for_each_allowed(&self, state: &Self::State, f: &mut dyn FnMut(u32)) {
        self.first.for_each_allowed(&state.0, &mut |token| {
            if self.second.accept(&state.1, token).is_some() {
                f(token);
            }
        });
    }

    fn is_complete(&self, state: &Self::State) -> bool {
        self.first.is_complete(&state.0) && self.second.is_complete(&state.1)
    }
}

/// Sequences of one length, whether or not they are items: the paper's free generation (TIGER, arXiv 2305.05065,
/// "Invalid IDs", counts how many of them are no item).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedLength {
    allowed: Vec<Range<u32>>,
}

impl FixedLength {
    /// Sequences of `length` tokens, each any token of its position's range.
    ///
    /// # Errors
    /// [`DecodeError::Length`] unless `length` is at least one and at most the layout's positions.
    pub fn new(vocab: &SidVocab, length: usize) -> Result<Self> {
        let positions = vocab.layout().positions();
        if length == 0 || length > positions {
            return Err(DecodeError::Length { length, positions });
        }
        Ok(Self { allowed: (0..length).map(|position| vocab.position_range(position)).collect() })
    }

    /// Sequences of `length` tokens, each any token of the whole vocabulary, specials and users included.
    ///
    /// # Errors
    /// [`DecodeError::Length`] unless `length` is at least one and at most the layout's positions.
    pub fn any_token(vocab: &SidVocab, length: usize) -> Result<Self> {
        let mut constraint = Self::new(vocab, length)?;
        constraint.allowed.fill(0..vocab.user_range().end);
        Ok(constraint)
    }
}

impl Constraint for FixedLength {
    type State = usize;

    fn start(&self) -> usize {
        0
    }

    fn accept(&self, position: &usize, token: u32) -> Option<usize> {
        self.allowed.get(*position)?.contains(&token).then_some(position + 1)
    }

    fn for_each_allowed(&self, position: &usize, f: &mut dyn FnMut(u32)) {
        if let Some(range) = self.allowed.get(*position) {
            range.clone().for_each(f);
        }
    }

    fn is_complete(&self, position: &usize) -> bool {
        *position >= self.allowed.len()
    }
}

/// Tokens that are never generated, for [`Constraint::and`]; any other of the vocabulary may follow at any time, and
/// every sequence is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForbiddenTokens {
    /// Sorted, without repetition.
    forbidden: Vec<u32>,
    vocabulary: Range<u32>,
}

impl ForbiddenTokens {
    /// Forbids the given tokens of a vocabulary.
    pub fn new(vocab: &SidVocab, tokens: impl IntoIterator<Item = u32>) -> Self {
        let mut forbidden: Vec<u32> = tokens.into_iter().collect();
        forbidden.sort_unstable();
        forbidden.dedup();
        Self { forbidden, vocabulary: 0..vocab.user_range().end }
    }
}

impl Constraint for ForbiddenTokens {
    type State = ();

    fn start(&self) {}

    fn accept(&self, (): &(), token: u32) -> Option<()> {
        (self.vocabulary.contains(&token) && self.forbidden.binary_search(&token).is_err()).then_some(())
    }

    fn for_each_allowed(&self, (): &(), f: &mut dyn FnMut(u32)) {
        let mut forbidden = self.forbidden.iter().peekable();
        for token in self.vocabulary.clone() {
            if forbidden.next_if_eq(&&token).is_none() {
                f(token);
            }
        }
    }

    fn is_complete(&self, (): &()) -> bool {
        true
    }
}
