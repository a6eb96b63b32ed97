//! Changing the files of a directory as a liar would.

use std::{collections::HashMap, fs, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

/// Changes a JSON file.
pub(super) fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Takes a directory as it is now back to what it is, whatever is done to it.
pub(super) struct Restored<'a>(&'a Path, Vec<(std::path::PathBuf, Vec<u8>)>);

impl<'a> Restored<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        let paths = genrec_tests::contents(dir).into_keys().map(|path| dir.join(path));
        Self(dir, paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect())
    }

    pub(super) fn restore(&self) {
        fs::remove_dir_all(self.0).unwrap();
        for (path, bytes) in &self.1 {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

/// A safetensors file.
pub(super) struct Tensors {
    pub(super) fields: Option<HashMap<String, String>>,
    pub(super) all: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Tensors {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
        let file = SafeTensors::deserialize(bytes).unwrap();
        let tensor =
            |(name, view): (String, TensorView<'_>)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec());
        Self { fields: header.metadata().clone(), all: file.tensors().into_iter().map(tensor).collect() }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let views = self
            .all
            .iter()
            .map(|(name, dtype, shape, data)| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
        safetensors::serialize(views, self.fields.clone()).unwrap()
    }

    pub(super) fn get(&mut self, name: &str) -> &mut (String, Dtype, Vec<usize>, Vec<u8>) {
        self.all.iter_mut().find(|tensor| tensor.0 == name).unwrap_or_else(|| panic!("no tensor `{name}`"))
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.get(name);
        self.all.retain(|tensor| tensor.0 != name);
    }

    /// One more, of zeros.
    pub(super) fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize]) {
        let bytes = dtype.bitsize() / 8 * shape.iter().product::<usize>();
        self.all.push((name.to_owned(), dtype, shape.to_vec(), vec![0; bytes]));
    }

    /// Gives a tensor of 32-bit values one more row of zeros.
    pub(super) fn widen(&mut self, name: &str) {
        let (_, _, shape, data) = self.get(name);
        shape[0] += 1;
        let bytes = 4 * shape.iter().product::<usize>();
        data.resize(bytes, 0);
    }

    /// Sets a value of a tensor of 32-bit floats.
    pub(super) fn set(&mut self, name: &str, at: usize, value: f32) {
        self.get(name).3[4 * at..][..4].copy_from_slice(&value.to_le_bytes());
    }

    /// Says that a tensor's bytes are of another type with as many.
    pub(super) fn retype(&mut self, name: &str, dtype: Dtype) {
        self.get(name).1 = dtype;
    }
}

/// Changes the tensors of a file.
pub(super) fn retensor(path: &Path, change: impl FnOnce(&mut Tensors)) {
    let mut tensors = Tensors::of(&fs::read(path).unwrap());
    change(&mut tensors);
    fs::write(path, tensors.bytes()).unwrap();
}
