//! Writing a model's folder: all of it or nothing, whatever the weights are made of.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::json;
use voxtral_files::Writer;

use crate::ModelError;
use crate::packed::{ALIGN, Description, Deviation, Packer, Rows, Stored};
use crate::tensor::DType;
use crate::threads::on_all_cores;

/// Values that are made, then written, at a time.
const BATCH: usize = 8 << 20;
/// Values that one thread makes at a time.
const BLOCK: usize = 1 << 16;

/// A tensor to be written.
pub(crate) struct Item<'a> {
    /// As the file is to name it.
    pub name: String,
    pub shape: Vec<usize>,
    pub form: Form,
    /// Its values; for a packed matrix, in the order in which they are packed.
    pub rows: Box<dyn Rows + 'a>,
}

/// How a tensor is written.
pub(crate) enum Form {
    Dense(DType),
    Packed(Packer),
}

impl Item<'_> {
    fn stored(&self) -> Stored {
        match &self.form {
            Form::Dense(dtype) => Stored::Dense(*dtype),
            Form::Packed(packer) => Stored::Packed(packer.encoding()),
        }
    }

    fn bytes(&self) -> usize {
        match &self.form {
            Form::Dense(dtype) => self.shape.iter().product::<usize>() * dtype.bytes(),
            Form::Packed(packer) => packer.bytes(),
        }
    }
}

/// The files of a model to be written.
pub(crate) struct Folder<'a> {
    pub dir: &'a Path,
    /// Names and contents of the description and the vocabulary.
    pub small: [(&'static str, Vec<u8>); 2],
    /// Name of the file of weights.
    pub weights: &'static str,
    pub items: Vec<Item<'a>>,
    /// Checksums of the files that packed weights are made of.
    pub source: BTreeMap<String, String>,
}

impl Folder<'_> {
    /// Writes it, and tells `progress` how many bytes of weights are written, and of how many. Returns how far the packed weights are
    /// from what they were made of, in the order of the items. The folder is made if need be.
    ///
    /// Until all is written the files have other names, so that what is there never looks like a model that it is not. Of several that
    /// write into one folder at once, one writes all files and the others fail.
    ///
    /// # Errors
    /// When the folder already holds a model's files, when it cannot be written, or when `progress` fails, with its error; then none of
    /// the files stays.
    pub(crate) fn write(
        &self,
        progress: &mut dyn FnMut(u64, u64) -> io::Result<()>,
    ) -> Result<Vec<Option<Deviation>>, ModelError> {
        let dir = self.dir;
        let path = |name: &str| dir.join(name);
        let failed = |path: PathBuf| {
            move |source: io::Error| match source.kind() {
                ErrorKind::AlreadyExists => ModelError::Exists { path },
                _ => ModelError::Io { path, source },
            }
        };
        fs::create_dir_all(dir).map_err(|source| ModelError::Io { path: dir.to_owned(), source })?;

        let begin = |name| Writer::create_new(&path(name)).map_err(failed(path(name)));
        let mut files = Vec::new();
        for (name, content) in &self.small {
            let mut file = begin(name)?;
            file.write_all(content).map_err(failed(path(name)))?;
            files.push((*name, file));
        }
        let mut weights = begin(self.weights)?;
        let deviations = self.write_weights(&mut weights, progress).map_err(failed(path(self.weights)))?;
        files.push((self.weights, weights));

        // Who is first to put the description there writes this model; nobody else gets further. The weights come last: a folder
        // without them is no model.
        let mut there = Vec::new();
        for (name, file) in files {
            if let Err(error) = file.commit() {
                // That they cannot be removed is less than what has failed.
                there.iter().for_each(|path| drop(fs::remove_file(path)));
                return Err(failed(path(name))(error));
            }
            there.push(path(name));
        }
        Ok(deviations)
    }

    fn write_weights(
        &self,
        file: &mut Writer,
        progress: &mut dyn FnMut(u64, u64) -> io::Result<()>,
    ) -> io::Result<Vec<Option<Deviation>>> {
        file.write_all(&self.header())?;
        let total = self.items.iter().map(|item| item.bytes() as u64).sum();
        let mut written = 0;
        let mut write = |bytes: &[u8]| {
            file.write_all(bytes)?;
            written += bytes.len() as u64;
            progress(written, total)
        };
        let mut deviations = vec![None; self.items.len()];
        for i in self.order() {
            let item = &self.items[i];
            match &item.form {
                Form::Packed(packer) => deviations[i] = Some(packer.write(&*item.rows, &mut write)?),
                Form::Dense(dtype) => write_dense(item, *dtype, &mut write)?,
            }
        }
        Ok(deviations)
    }

    /// Packed tensors first: their lengths are multiples of what vectors like to be aligned to.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        order.sort_by_key(|&i| matches!(self.items[i].form, Form::Dense(_)));
        order
    }

    /// Length and header of the safetensors file, padded so that what follows is aligned.
    fn header(&self) -> Vec<u8> {
        let mut start = 0;
        let mut entries = serde_json::Map::new();
        let described = self.items.iter().map(|item| (&*item.name, &*item.shape, item.stored()));
        if self.items.iter().any(|item| matches!(item.form, Form::Packed(_))) {
            let description = Description::json(described, &self.source);
            entries.insert("__metadata__".to_owned(), json!({Description::KEY: description}));
        }
        for item in self.order().into_iter().map(|i| &self.items[i]) {
            let end = start + item.bytes();
            let (dtype, shape) = match &item.form {
                Form::Dense(dtype) => (dtype.name(), &item.shape),
                Form::Packed(_) => ("U8", &vec![item.bytes()]),
            };
            let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
            entries.insert(item.name.clone(), entry);
            start = end;
        }
        let mut json = serde_json::Value::Object(entries).to_string().into_bytes();
        json.resize((8 + json.len()).next_multiple_of(ALIGN) - 8, b' ');
        [&(json.len() as u64).to_le_bytes()[..], &json].concat()
    }
}

fn write_dense(item: &Item<'_>, dtype: DType, write: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let len = item.shape.iter().product::<usize>();
    let mut buffer = vec![0; BATCH.min(len) * dtype.bytes()];
    for start in (0..len).step_by(BATCH) {
        let batch = &mut buffer[..BATCH.min(len - start) * dtype.bytes()];
        on_all_cores(|| fill(&*item.rows, dtype, start, batch));
        write(batch)?;
    }
    Ok(())
}

/// Values `start..` of a tensor, on all cores.
pub(crate) fn fill(rows: &dyn Rows, dtype: DType, start: usize, out: &mut [u8]) {
    out.par_chunks_mut(BLOCK * dtype.bytes()).enumerate().for_each_init(Vec::new, |values, (i, block)| {
        values.resize(block.len() / dtype.bytes(), 0.0);
        rows.read(start + i * BLOCK, values);
        dtype.narrow(values, block);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn headers_of_every_length_are_whole_and_aligned() {
        for length in 1..=64 {
            let (name, shape) = ("x".repeat(length), vec![3, 5]);
            let rows = Box::new(Tensor::from_f32(&[0.0; 15], &shape));
            let items = vec![Item { name: name.clone(), shape, form: Form::Dense(DType::Bf16), rows }];
            let small = [("a", Vec::new()), ("b", Vec::new())];
            let folder = Folder { dir: Path::new(""), small, weights: "c", items, source: BTreeMap::new() };
            let header = folder.header();
            assert_eq!(header.len() % ALIGN, 0, "a name of {length}");
            let json: serde_json::Value = serde_json::from_slice(&header[8..]).unwrap();
            assert_eq!(json[name]["shape"], json!([3, 5]));
        }
    }
}
