//! A model's folder, packed into another.

use std::io;
use std::path::Path;

use crate::checkpoint::{Checkpoint, Listed, Matrix};
use crate::packed::{Deviation, Encoding, Packer, Part, Plan, Rows};
use crate::write::{Folder, Form, Item};
use crate::{ModelError, Tensor, files, model};

/// What became of a matrix.
#[derive(Clone, Debug)]
pub struct Quantised {
    /// As the file names it.
    pub name: String,
    /// Where it belongs.
    pub part: Part,
    /// Its weights.
    pub weights: u64,
    /// How it is packed; none if it stays as it was, because its encoding cannot hold it.
    pub encoding: Option<Encoding>,
    /// How far it is from what it was.
    pub deviation: Deviation,
}

/// Packs the matrices of the model in the folder `from` into a model in the folder `to`, with the same layout and names; everything
/// else is copied. Tells `progress` how many bytes of weights are written, and of how many. Weights are read twice, mapped: to check and
/// sum them, and to pack them.
///
/// Until all is written the files have other names, so that what is there never looks like a model that it is not.
///
/// # Errors
/// Those of opening a model; when weights are packed already; when `to` holds a model's files or cannot be written; when `progress`
/// fails, with its error. Then none of the files stays.
pub fn quantise(
    from: &Path,
    to: &Path,
    plan: &Plan,
    mut progress: impl FnMut(u64, u64) -> io::Result<()>,
) -> Result<Vec<Quantised>, ModelError> {
    let checkpoint = Checkpoint::open(from)?;
    let description = checkpoint.read_config()?;
    let config = checkpoint.parse_config(&description)?;
    let tekken = files::read(&from.join(model::TEKKEN), files::MOST_TEKKEN_BYTES)?;
    model::tokenizer(&from.join(model::TEKKEN), &tekken, &config)?;
    let [config_name, weights] = checkpoint.layout().files();
    let source = checkpoint.checksums();
    let Listed { others, matrices } = checkpoint.list(&config)?;

    let other = |(name, tensor): (String, Tensor)| Item {
        name,
        shape: tensor.shape().to_vec(),
        form: Form::Dense(tensor.dtype()),
        rows: Box::new(tensor),
    };
    let parts: Vec<Part> = matrices.iter().map(|matrix| matrix.part).collect();
    let mut items: Vec<Item<'_>> = matrices.into_iter().map(|matrix| item(matrix, plan)).collect();
    items.extend(others.into_iter().map(other));
    let small = [(config_name, description), (model::TEKKEN, tekken)];
    let folder = Folder { dir: to, small, weights, items, source };
    let deviations = folder.write(&mut progress)?;
    let matrices = folder.items.iter().zip(deviations).zip(parts);
    let report = matrices.map(|((item, deviation), part)| Quantised {
        name: item.name.clone(),
        part,
        weights: item.shape.iter().product::<usize>() as u64,
        encoding: match &item.form {
            Form::Packed(packer) => Some(packer.encoding()),
            Form::Dense(_) => None,
        },
        deviation: deviation.unwrap_or_default(),
    });
    Ok(report.collect())
}

fn item(matrix: Matrix, plan: &Plan) -> Item<'static> {
    let Matrix { name, tensor, part, head_dim } = matrix;
    let (shape, dtype) = (tensor.shape().to_vec(), tensor.dtype());
    let (n, k) = (shape[0], shape[1..].iter().product());
    let native: Box<dyn Rows> = match head_dim {
        Some(head_dim) => Box::new(Interleaved { tensor: tensor.clone(), head_dim }),
        None => Box::new(tensor.clone()),
    };
    match Packer::new(plan.of(part), n, k, dtype, &*native) {
        Some(packer) => Item { name, shape, form: Form::Packed(packer), rows: native },
        // As it was, with its rows in the order in which this layout stores them.
        None => Item { name, shape, form: Form::Dense(dtype), rows: Box::new(tensor) },
    }
}

/// A tensor of the Hugging Face layout with the rows of each head in the native order.
struct Interleaved {
    tensor: Tensor,
    head_dim: usize,
}

impl Rows for Interleaved {
    fn read(&self, mut start: usize, out: &mut [f32]) {
        let k = self.tensor.shape()[1..].iter().product::<usize>();
        let mut out = out;
        while !out.is_empty() {
            let (row, column) = (start / k, start % k);
            let (head, of_head) = (row / self.head_dim * self.head_dim, row % self.head_dim);
            let stored = head + of_head % 2 * self.head_dim / 2 + of_head / 2;
            let (some, rest) = out.split_at_mut((k - column).min(out.len()));
            self.tensor.read(stored * k + column, some);
            start += some.len();
            out = rest;
        }
    }
}
