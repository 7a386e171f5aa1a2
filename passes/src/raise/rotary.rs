//! Rotations told by meaning: heads whose channels are turned in pairs by cosines and sines of their position.
//!
//! A head that was turned is, at every position, a rotation of pairs of channels of the head before, perhaps times a factor
//! that all positions share (yarn). Which channels are a pair, and by what angle they turn, is read from the numbers of the
//! tables at all positions; who wrote the rotation, and in which operations, does not show.

use super::views::{Addend, ChannelSum, TableColumn, Views};
use snnc_ir::op::Pairs;
use std::rc::Rc;

/// What cosines and sines may miss a rotation by: those of f16 miss it by 1e-3.
const NEAR: f64 = 1e-2;

/// Channels of a head that are turned, at most.
const TURNED_MAX: usize = 4096;

/// Two coefficients that should be the same.
const SAME: f64 = 1e-6;

/// A column of a table, times a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Coefficient {
    factor: f64,
    by: TableColumn,
}

/// Two channels of a head that turn together: `(a cos - b sin, b cos + a sin)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PairTurn {
    /// Places of the pair in its head.
    pub channels: [usize; 2],
    cos: Coefficient,
    sin: Coefficient,
}

/// Heads before they were turned.
#[derive(Clone, Debug)]
pub(super) struct TurnedHeads {
    /// By head, then place: the channel of the base that stands there.
    pub channels: Vec<Vec<u32>>,
    /// By head, then place: what that channel is times.
    pub factors: Vec<Vec<f64>>,
    /// The pairs of every head; none where nothing turns.
    pub turns: Vec<PairTurn>,
}

impl TurnedHeads {
    /// Heads of these entries; none where they are no rotation of channels.
    pub fn of(views: &mut Views<'_>, heads: &[Vec<&ChannelSum>]) -> Option<Self> {
        let mut all = TurnedHeads { channels: Vec::new(), factors: Vec::new(), turns: Vec::new() };
        for (i, head) in heads.iter().enumerate() {
            let (channels, factors, turns) = one_head(views, head)?;
            if i > 0 && turns != all.turns {
                return None;
            }
            all.channels.push(channels);
            all.factors.push(factors);
            all.turns = turns;
        }
        Some(all)
    }

    /// The factor of all channels, where it is the same.
    pub fn scale(&self) -> Option<f64> {
        let first = *self.factors.first()?.first()?;
        self.factors.iter().flatten().all(|factor| *factor == first).then_some(first)
    }

    /// The places of every head in another order.
    pub fn reordered(&mut self, order: &[usize]) {
        for head in &mut self.channels {
            *head = order.iter().map(|&place| head[place]).collect();
        }
        for head in &mut self.factors {
            *head = order.iter().map(|&place| head[place]).collect();
        }
        let at = |place: usize| order.iter().position(|&old| old == place).unwrap_or(place);
        for turn in &mut self.turns {
            turn.channels = turn.channels.map(at);
        }
        self.turns.sort_by_key(|turn| turn.channels);
    }

    /// How the pairs stand, where they stand in one of the two usual ways.
    pub fn pairs(&self) -> Option<Pairs> {
        let stands = |pairs: &Pairs| {
            let at = |(i, turn): (usize, &PairTurn)| turn.channels == pairs.channels(i, self.turns.len());
            self.turns.iter().enumerate().all(at)
        };
        Pairs::ALL.into_iter().find(stands)
    }

    /// An order of the places in which the pairs stand as halves, and what does not turn behind them.
    pub fn order(&self) -> Vec<usize> {
        let width = self.channels.first().map_or(0, Vec::len);
        let mut order: Vec<usize> =
            [0, 1].iter().flat_map(|&end| self.turns.iter().map(move |turn| turn.channels[end])).collect();
        let rest: Vec<usize> = (0..width).filter(|place| !order.contains(place)).collect();
        order.extend(rest);
        order
    }

    /// A row for each position: cosines of all pairs, then sines.
    pub fn rows(&self, views: &mut Views<'_>) -> Option<Vec<f32>> {
        let mut columns = Vec::with_capacity(2 * self.turns.len());
        for coefficient in self.turns.iter().map(|turn| turn.cos).chain(self.turns.iter().map(|turn| turn.sin)) {
            columns.push((views.column(coefficient.by)?, coefficient.factor));
        }
        let count = columns.iter().map(|(column, _)| column.len()).min()?;
        let row = |at: usize| columns.iter().map(move |(column, factor)| (column[at] * factor) as f32);
        Some((0..count).flat_map(row).collect())
    }
}

/// A place of a head: its own channel, and the one that it is turned with.
#[derive(Clone, Copy)]
struct TurnedPlace {
    own: u32,
    factor: f64,
    with: Option<(Coefficient, u32, Coefficient)>,
}

/// Channels, factors and pairs of a head.
fn one_head(views: &mut Views<'_>, head: &[&ChannelSum]) -> Option<(Vec<u32>, Vec<f64>, Vec<PairTurn>)> {
    let mut places = Vec::with_capacity(head.len());
    for entry in head {
        places.push(one_place(views, entry)?);
    }
    if places.len() > TURNED_MAX && places.iter().any(|place| place.with.is_some()) {
        return None;
    }
    let mut turns: Vec<PairTurn> = Vec::new();
    let mut factors: Vec<f64> = places.iter().map(|place| place.factor).collect();
    for (i, place) in places.iter().enumerate() {
        let Some((cos, other, sin)) = place.with else { continue };
        let j = places.iter().position(|partner| partner.own == other && partner.with.is_some())?;
        let (back_cos, back, back_sin) = places[j].with?;
        if back != place.own || i == j {
            return None;
        }
        if i < j {
            let (turn, own) = pair(views, [i, j], [cos, sin], [back_cos, back_sin])?;
            turns.push(turn);
            [factors[i], factors[j]] = own;
        }
    }
    Some((places.iter().map(|place| place.own).collect(), factors, turns))
}

fn one_place(views: &mut Views<'_>, entry: &ChannelSum) -> Option<TurnedPlace> {
    let coefficient = |addend: &Addend| Some(Coefficient { factor: addend.factor, by: addend.by? });
    match entry.as_slice() {
        &[Addend { channel, factor, by: None }] => Some(TurnedPlace { own: channel, factor, with: None }),
        [a, b] => {
            let (x, y) = (coefficient(a)?, coefficient(b)?);
            // Where a sequence begins, nothing is turned much: the own channel is the larger part.
            let first = |views: &mut Views<'_>, c: Coefficient| Some((c.factor * views.column(c.by)?.first()?).abs());
            let own_first = first(views, x)? >= first(views, y)?;
            let (own, cos, other, sin) = if own_first { (a, x, b, y) } else { (b, y, a, x) };
            Some(TurnedPlace { own: own.channel, factor: 1.0, with: Some((cos, other.channel, sin)) })
        }
        _ => None,
    }
}

/// Two places as a pair, if they are a rotation at all positions, and what their channels are times before it. `first` and
/// `second`: the coefficients of each place's own channel and of the other's.
fn pair(
    views: &mut Views<'_>,
    channels: [usize; 2],
    first: [Coefficient; 2],
    second: [Coefficient; 2],
) -> Option<(PairTurn, [f64; 2])> {
    let mut column = |c: Coefficient| Some((views.column(c.by)?, c.factor));
    let [a_own, b_other] = [column(first[0])?, column(first[1])?];
    let [b_own, a_other] = [column(second[0])?, column(second[1])?];
    let count =
        [&a_own, &b_other, &b_own, &a_other].into_iter().map(|(column, _)| column.len()).min().filter(|&n| n > 0)?;
    let at = |(column, factor): &(Rc<Vec<f64>>, f64), i: usize| column[i] * factor;
    // What a channel is times is the length of what it becomes.
    let length = |own, other| {
        let length = at(own, 0).hypot(at(other, 0)).copysign(at(own, 0));
        if (length - 1.0).abs() < SAME { 1.0 } else { length }
    };
    let (a, b) = (length(&a_own, &a_other), length(&b_own, &b_other));
    let fits = |i: usize| {
        let (cos, sin) = (at(&a_own, i) / a, at(&a_other, i) / a);
        (cos.hypot(sin) - 1.0).abs() <= NEAR
            && (cos - at(&b_own, i) / b).abs() <= SAME
            && (sin + at(&b_other, i) / b).abs() <= SAME
    };
    let turns = a != 0.0 && b != 0.0 && (0..count).all(fits);
    let over = |c: Coefficient| Coefficient { factor: c.factor / a, ..c };
    turns.then(|| (PairTurn { channels, cos: over(first[0]), sin: over(second[1]) }, [a, b]))
}
