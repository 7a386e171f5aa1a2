//! The table of time-stepped neurons: a new neuron is a row here, and nothing else (`docs/add-a-neuron.md`).

/// One kind of neuron.
#[derive(Debug)]
pub(super) struct MembraneRow {
    /// How the text form and options spell it.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// What one timestep does, as `super::formula` reads it.
    pub formula: &'static str,
    /// What counts as one threshold where it trains: the surrogate sees distances from the threshold over this.
    pub surrogate_width: f64,
}

/// All rows. Their order is that of help and documentation.
pub(super) const ROWS: &[MembraneRow] = &[
    MembraneRow {
        name: "if",
        about: "integrate and fire; a spike takes the threshold away",
        formula: "
            state v = 0.5
            u = v + input
            spike = u >= 1
            v = u - spike",
        surrogate_width: 1.0,
    },
    MembraneRow {
        name: "if_hard",
        about: "integrate and fire; a spike takes everything away",
        formula: "
            state v = 0.5
            u = v + input
            spike = u >= 1
            v = if spike then 0 else u",
        surrogate_width: 1.0,
    },
    MembraneRow {
        name: "lif",
        about: "leaky: 1/16 of the potential is lost every timestep; a spike takes the threshold away",
        formula: "
            state v = 0.5
            u = v * 0.9375 + input
            spike = u >= 1
            v = u - spike",
        surrogate_width: 1.0,
    },
    MembraneRow {
        name: "st_bif",
        about: "bipolar, with a tracer of the spikes so far: takes back what later inputs contradict (SpikeZIP-TF, 2024)",
        formula: "
            state v = 0.5
            state said = 0
            u = v + input
            up = u >= 1 and said < timesteps
            down = u < 0 and said > least
            v = u - (up - down)
            said = said + (up - down)",
        surrogate_width: 1.0,
    },
    MembraneRow {
        name: "plif",
        about: "leaky, with a leak for every channel that training learns; a spike takes the threshold away",
        formula: "
            parameter kept = 0.9375 from 0 to 1
            state v = 0.5
            u = v * kept + input
            spike = u >= 1
            v = u - spike",
        surrogate_width: 1.0,
    },
    MembraneRow {
        name: "alif",
        about: "integrate and fire with a threshold that rises by 1/8 at a spike and falls back by 1/8 every timestep",
        formula: "
            state v = 0.5
            state raised = 0
            threshold = 1 + raised
            u = v + input
            spike = u >= threshold
            v = if spike then u - threshold else u
            raised = raised * 0.875 + spike * 0.125",
        surrogate_width: 1.0,
    },
    MembraneRow {
        name: "if_rest",
        about: "integrate and fire; it rests for the timestep after a spike, and integrates nothing then",
        formula: "
            state v = 0.5
            state rest = 0
            u = if rest > 0 then v else v + input
            spike = u >= 1 and rest <= 0
            v = u - spike
            rest = if spike then 1 else max(rest - 1, 0)",
        surrogate_width: 1.0,
    },
    MembraneRow {
        name: "izhikevich",
        about: "a quadratic potential and a recovery variable, in whole numbers of 1/64 threshold",
        formula: "
            state v = 0
            state w = 0
            u = v + floor(v * v * 0.00390625) + floor(input * 64) - w
            spike = u >= 64
            v = if spike then 0 else max(u, -64)
            w = w + floor((v * 0.25 - w) * 0.0625) + 4 * spike",
        surrogate_width: 64.0,
    },
];
