//! The formulas of neurons: text to a `Rule`.
//!
//! A line is one statement:
//!
//! | statement | meaning |
//! |---|---|
//! | `state v = 0.5` | a state variable, and its value before the first timestep |
//! | `parameter kept = 0.9375 from 0 to 1` | a number of every channel: before training, and its range |
//! | `u = v + input` | a name for an expression |
//! | `spike = u >= 1` | when it spikes; or `up` and `down`, for spikes of both signs from one membrane |
//! | `v = u - spike` | what is left of a state variable. Until this line the name means what the last timestep left |
//!
//! Expressions have, the loosest first: `if a then b else c`, `or`, `and`, `not`, one comparison (`>=`, `>`, `<=`, `<`), `+` and
//! `-`, `*`, a minus sign, numbers, names, brackets, `floor(x)`, `abs(x)`, `min(a, b)` and `max(a, b)`. A truth that stands for a number is 1
//! or 0. `input` is what flows in, `timesteps` how many there are, and `least` the least sum of spikes that the curve allows.

use super::rule::{Parameter, Relation, Rule, RuleTerm, StateVariable, TermId};

impl Rule {
    /// The rule of a formula (`docs/ir.md`).
    ///
    /// # Errors
    /// The line, and what is wrong with it.
    pub fn read(formula: &str) -> Result<Self, String> {
        let mut reader = RuleReader::default();
        for line in formula.lines().map(str::trim).filter(|line| !line.is_empty()) {
            reader.line(line).map_err(|why| format!("`{line}`: {why}"))?;
        }
        reader.finish()
    }
}

#[derive(Default)]
struct RuleReader {
    terms: Vec<RuleTerm>,
    names: Vec<(String, TermId)>,
    states: Vec<(String, f64, Option<TermId>)>,
    parameters: Vec<Parameter>,
}

impl RuleReader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let (left, right) = line.split_once('=').ok_or("a line is a name, `=` and an expression")?;
        let words: Vec<&str> = left.split_whitespace().collect();
        match words[..] {
            ["state", name] => {
                self.fresh(name)?;
                let state = RuleTerm::State(self.states.len());
                self.states.push((name.into(), number(right)?, None));
                let id = self.term(state);
                self.names.push((name.into(), id));
            }
            ["parameter", name] => {
                self.fresh(name)?;
                let words: Vec<&str> = right.split_whitespace().collect();
                let [start, "from", least, "to", most] = words[..] else {
                    return Err("a parameter has a number, `from` and `to`".into());
                };
                let [start, least, most] = [number(start)?, number(least)?, number(most)?];
                if !(least <= start && start <= most) {
                    return Err("a parameter starts within its range".into());
                }
                let parameter = RuleTerm::Parameter(self.parameters.len());
                self.parameters.push(Parameter { name: name.into(), start, least, most });
                let id = self.term(parameter);
                self.names.push((name.into(), id));
            }
            [name] => {
                let mut tokens = FormulaTokens::of(right)?;
                let id = self.choice(&mut tokens)?;
                if let Some(rest) = tokens.next() {
                    return Err(format!("`{rest}` is left over"));
                }
                let id = if let Some(i) = self.states.iter().position(|(state, ..)| state == name) {
                    let id = self.as_number(id);
                    if self.states[i].2.replace(id).is_some() {
                        return Err(format!("`{name}` is set twice"));
                    }
                    id
                } else {
                    self.fresh(name)?;
                    id
                };
                // The latest meaning of a name is the one that later lines read.
                self.names.push((name.into(), id));
            }
            _ => return Err("a line begins with a name, `state` or `parameter`".into()),
        }
        Ok(())
    }

    fn fresh(&self, name: &str) -> Result<(), String> {
        let plain = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let reserved =
            ["input", "timesteps", "least", "if", "then", "else", "and", "or", "not", "floor", "abs", "min", "max"];
        if !plain || reserved.contains(&name) {
            return Err(format!("`{name}` cannot be a name"));
        }
        match self.names.iter().any(|(known, _)| known == name) {
            true => Err(format!("`{name}` is set twice")),
            false => Ok(()),
        }
    }

    fn finish(self) -> Result<Rule, String> {
        let named = |name: &str| self.names.iter().rfind(|(known, _)| known == name).map(|(_, id)| *id);
        let (up, down) = match [named("spike"), named("up"), named("down")] {
            [Some(spike), None, None] => (spike, None),
            [None, Some(up), Some(down)] => (up, Some(down)),
            _ => return Err("a neuron says `spike`, or `up` and `down`".into()),
        };
        if [Some(up), down].into_iter().flatten().any(|id| !self.terms[id.index()].is_truth()) {
            return Err("whether it spikes is a comparison".into());
        }
        let mut states = Vec::new();
        for (name, start, next) in self.states {
            let next = next.ok_or_else(|| format!("the state variable `{name}` is never set"))?;
            states.push(StateVariable { name, start, next });
        }
        Ok(Rule { terms: self.terms, states, parameters: self.parameters, up, down })
    }

    /// The place of a term: equal terms are one.
    fn term(&mut self, term: RuleTerm) -> TermId {
        match self.terms.iter().position(|known| *known == term) {
            Some(i) => Rule::at(i),
            None => Rule::push(&mut self.terms, term),
        }
    }

    fn as_number(&mut self, id: TermId) -> TermId {
        if self.terms[id.index()].is_truth() { self.term(RuleTerm::One(id)) } else { id }
    }

    fn as_truth(&self, id: TermId, of: &str) -> Result<TermId, String> {
        if self.terms[id.index()].is_truth() { Ok(id) } else { Err(format!("`{of}` stands between comparisons")) }
    }

    fn choice(&mut self, tokens: &mut FormulaTokens<'_>) -> Result<TermId, String> {
        if !tokens.take("if") {
            return self.either(tokens);
        }
        let truth = self.either(tokens)?;
        let truth = self.as_truth(truth, "if")?;
        tokens.expect("then")?;
        let then = self.choice(tokens)?;
        tokens.expect("else")?;
        let other = self.choice(tokens)?;
        let (then, other) = (self.as_number(then), self.as_number(other));
        Ok(self.term(RuleTerm::Choose(truth, then, other)))
    }

    fn either(&mut self, tokens: &mut FormulaTokens<'_>) -> Result<TermId, String> {
        let mut left = self.both(tokens)?;
        while tokens.take("or") {
            let right = self.both(tokens)?;
            let (a, b) = (self.as_truth(left, "or")?, self.as_truth(right, "or")?);
            left = self.term(RuleTerm::Or(a, b));
        }
        Ok(left)
    }

    fn both(&mut self, tokens: &mut FormulaTokens<'_>) -> Result<TermId, String> {
        let mut left = self.opposite(tokens)?;
        while tokens.take("and") {
            let right = self.opposite(tokens)?;
            let (a, b) = (self.as_truth(left, "and")?, self.as_truth(right, "and")?);
            left = self.term(RuleTerm::And(a, b));
        }
        Ok(left)
    }

    fn opposite(&mut self, tokens: &mut FormulaTokens<'_>) -> Result<TermId, String> {
        if !tokens.take("not") {
            return self.comparison(tokens);
        }
        let truth = self.opposite(tokens)?;
        let truth = self.as_truth(truth, "not")?;
        Ok(self.term(RuleTerm::Not(truth)))
    }

    fn comparison(&mut self, tokens: &mut FormulaTokens<'_>) -> Result<TermId, String> {
        let left = self.sum(tokens)?;
        for (sign, comparison, swapped) in [
            (">=", Relation::AtLeast, false),
            (">", Relation::Above, false),
            ("<=", Relation::AtLeast, true),
            ("<", Relation::Above, true),
        ] {
            if tokens.take(sign) {
                let right = self.sum(tokens)?;
                let (a, b) = (self.as_number(left), self.as_number(right));
                let (a, b) = if swapped { (b, a) } else { (a, b) };
                return Ok(self.term(RuleTerm::Compare(comparison, a, b)));
            }
        }
        Ok(left)
    }

    fn sum(&mut self, tokens: &mut FormulaTokens<'_>) -> Result<TermId, String> {
        let mut left = self.product(tokens)?;
        loop {
            let plus = tokens.take("+");
            if !plus && !tokens.take("-") {
                return Ok(left);
            }
            let right = self.product(tokens)?;
            let (a, b) = (self.as_number(left), self.as_number(right));
            left = self.term(if plus { RuleTerm::Add(a, b) } else { RuleTerm::Sub(a, b) });
        }
    }

    fn product(&mut self, tokens: &mut FormulaTokens<'_>) -> Result<TermId, String> {
        let mut left = self.factor(tokens)?;
        while tokens.take("*") {
            let right = self.factor(tokens)?;
            let (a, b) = (self.as_number(left), self.as_number(right));
            left = self.term(RuleTerm::Mul(a, b));
        }
        Ok(left)
    }

    fn factor(&mut self, tokens: &mut FormulaTokens<'_>) -> Result<TermId, String> {
        if tokens.take("-") {
            if let Some(x) = tokens.peek().and_then(|token| number(token).ok()) {
                tokens.next();
                return Ok(self.term(RuleTerm::Number(-x)));
            }
            let x = self.factor(tokens)?;
            return Ok(self.negative(x));
        }
        let token = tokens.next().ok_or("an expression ends too early")?;
        match token {
            "(" => {
                let inside = self.choice(tokens)?;
                tokens.expect(")")?;
                Ok(inside)
            }
            "floor" | "abs" | "min" | "max" => self.function(token, tokens),
            "input" => Ok(self.term(RuleTerm::Input)),
            "timesteps" => Ok(self.term(RuleTerm::Timesteps)),
            "least" => Ok(self.term(RuleTerm::Least)),
            _ => match self.names.iter().rfind(|(known, _)| known == token) {
                Some((_, id)) => Ok(*id),
                None => match number(token) {
                    Ok(x) => Ok(self.term(RuleTerm::Number(x))),
                    Err(_) => Err(format!("`{token}` is no name, number or function")),
                },
            },
        }
    }

    fn negative(&mut self, x: TermId) -> TermId {
        let (zero, x) = (self.term(RuleTerm::Number(0.0)), self.as_number(x));
        self.term(RuleTerm::Sub(zero, x))
    }

    fn function(&mut self, name: &str, tokens: &mut FormulaTokens<'_>) -> Result<TermId, String> {
        tokens.expect("(")?;
        let a = self.choice(tokens)?;
        let a = self.as_number(a);
        let b = match name {
            "floor" => None,
            "abs" => Some(self.negative(a)),
            _ => {
                tokens.expect(",")?;
                let b = self.choice(tokens)?;
                Some(self.as_number(b))
            }
        };
        tokens.expect(")")?;
        let Some(b) = b else { return Ok(self.term(RuleTerm::Floor(a))) };
        let (large, small) = if name == "min" { (b, a) } else { (a, b) };
        let above = self.term(RuleTerm::Compare(Relation::Above, large, small));
        Ok(self.term(RuleTerm::Choose(above, a, b)))
    }
}

/// A number that is finite in f32.
fn number(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let number = text.parse().ok().filter(|&x: &f64| (x as f32).is_finite() && !text.starts_with('+'));
    number.ok_or_else(|| format!("`{text}` is no number"))
}

/// Words, numbers and signs of an expression.
struct FormulaTokens<'a> {
    all: Vec<&'a str>,
    at: usize,
}

impl<'a> FormulaTokens<'a> {
    fn of(text: &'a str) -> Result<Self, String> {
        let mut all = Vec::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            let length = if word(first) {
                rest.find(|c| !word(c)).unwrap_or(rest.len())
            } else if rest.starts_with(">=") || rest.starts_with("<=") {
                2
            } else if "()+-*<>,".contains(first) {
                1
            } else {
                return Err(format!("`{first}` has no meaning here"));
            };
            let (token, after) = rest.split_at(length);
            all.push(token);
            rest = after.trim_start();
        }
        Ok(Self { all, at: 0 })
    }

    fn peek(&self) -> Option<&'a str> {
        self.all.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        match self.take(token) {
            true => Ok(()),
            false => Err(format!("`{token}` was expected")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (formula, why) in [
            ("v + 1", "`v + 1`: a line is a name, `=` and an expression"),
            ("state v = 0.5\nspike = v >= 1", "the state variable `v` is never set"),
            ("spike = input", "whether it spikes is a comparison"),
            ("up = input > 1", "a neuron says `spike`, or `up` and `down`"),
            ("spike = input > 1\nspike = input > 2", "`spike = input > 2`: `spike` is set twice"),
            ("spike = x > 1", "`spike = x > 1`: `x` is no name, number or function"),
            ("spike = input > 1 1", "`spike = input > 1 1`: `1` is left over"),
            ("spike = input > (1", "`spike = input > (1`: `)` was expected"),
            ("spike = input >", "`spike = input >`: an expression ends too early"),
            ("spike = input and 1", "`spike = input and 1`: `and` stands between comparisons"),
            ("spike = input % 2 > 1", "`spike = input % 2 > 1`: `%` has no meaning here"),
            ("parameter k = 2 from 0 to 1", "`parameter k = 2 from 0 to 1`: a parameter starts within its range"),
            ("parameter k = 2", "`parameter k = 2`: a parameter has a number, `from` and `to`"),
            ("state input = 1", "`state input = 1`: `input` cannot be a name"),
            ("state v = one", "`state v = one`: `one` is no number"),
            ("state v = 1e39", "`state v = 1e39`: `1e39` is no number"),
        ] {
            let message = Rule::read(formula).map_or_else(|why| why, |_| "it was read".into());
            assert_eq!(message, why, "{formula}");
        }
    }

    #[test]
    fn equal_terms_are_one_and_names_mean_their_latest() {
        let rule =
            Rule::read("state v = 0\nu = v + input\nspike = v + input >= 1\nv = u - spike").expect("it is sound");
        assert_eq!(rule.terms.len(), 7, "{:?}", rule.terms);
    }
}
