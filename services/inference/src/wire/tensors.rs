//! Tensors of the Open Inference Protocol: rows and byte strings in, columns out.

use asterism_proto::open_inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    model_infer_response::InferOutputTensor, model_metadata_response::TensorMetadata,
};

use super::MAX_ROWS;
use crate::error::InferenceError;

/// Elements of a tensor that is sent.
pub(crate) enum Elements {
    /// FP64.
    Numbers(Vec<f64>),
    /// BYTES.
    Bytes(Vec<Vec<u8>>),
}

/// A tensor that is sent.
pub(crate) struct Output {
    pub(crate) name: &'static str,
    pub(crate) shape: Vec<i64>,
    pub(crate) elements: Elements,
}

/// Describes a tensor.
pub(crate) fn metadata(name: &str, datatype: &str, shape: &[i64]) -> TensorMetadata {
    TensorMetadata {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
    }
}

/// The only input of a request.
struct Input<'a> {
    tensor: &'a InferInputTensor,
    raw: Option<&'a [u8]>,
}

fn bad(field: &str, description: impl Into<String>) -> InferenceError {
    InferenceError::field(field, description)
}

impl<'a> Input<'a> {
    fn of(request: &'a ModelInferRequest, name: &str) -> Result<Self, InferenceError> {
        let [tensor] = request.inputs.as_slice() else {
            return Err(bad("inputs", format!("must be one tensor, `{name}`")));
        };
        if tensor.name != name {
            return Err(bad("inputs[0].name", format!("must be `{name}`")));
        }
        let raw = match request.raw_input_contents.as_slice() {
            [] => None,
            [_] if tensor.contents.is_some() => {
                return Err(bad(
                    "raw_input_contents",
                    "must not stand beside `contents`: send one of them",
                ));
            }
            [raw] => Some(raw.as_slice()),
            _ => return Err(bad("raw_input_contents", "must be as many as `inputs`")),
        };
        Ok(Self { tensor, raw })
    }

    fn contents(&self) -> Result<&'a InferTensorContents, InferenceError> {
        let contents = self.tensor.contents.as_ref();
        contents.ok_or_else(|| {
            bad(
                "inputs[0].contents",
                "must be there unless `raw_input_contents` is",
            )
        })
    }

    /// Rows, at most [`MAX_ROWS`], and elements of each, of a shape with so many dimensions.
    fn shape<const N: usize>(&self) -> Result<[usize; N], InferenceError> {
        let shape = self.tensor.shape.iter().map(|size| usize::try_from(*size));
        let shape: Vec<usize> = shape
            .collect::<Result<_, _>>()
            .map_err(|_| bad("inputs[0].shape", "must not be negative"))?;
        let shape: [usize; N] = shape
            .try_into()
            .map_err(|_| bad("inputs[0].shape", format!("must have {N} dimensions")))?;
        if shape[0] > MAX_ROWS {
            return Err(bad("inputs[0].shape", "at most 10 000 rows in one request"));
        }
        Ok(shape)
    }

    fn datatype(&self) -> &'a str {
        &self.tensor.datatype
    }
}

/// The rows of the tensor `input`, FP32 or FP64, [rows, features].
pub(crate) fn rows(request: &ModelInferRequest) -> Result<Vec<Vec<f64>>, InferenceError> {
    let input = Input::of(request, "input")?;
    let [rows, features] = input.shape::<2>()?;
    let numbers = match (input.datatype(), input.raw) {
        ("FP64", Some(raw)) => little_endian(raw, f64::from_le_bytes)?,
        ("FP32", Some(raw)) => little_endian(raw, |bytes| f64::from(f32::from_le_bytes(bytes)))?,
        ("FP64", None) => input.contents()?.fp64_contents.clone(),
        ("FP32", None) => {
            let contents = &input.contents()?.fp32_contents;
            contents.iter().map(|value| f64::from(*value)).collect()
        }
        _ => return Err(bad("inputs[0].datatype", "must be FP32 or FP64")),
    };
    if features == 0 || rows.checked_mul(features) != Some(numbers.len()) {
        return Err(bad("inputs[0].shape", "does not fit the elements that were sent"));
    }
    Ok(numbers.chunks_exact(features).map(<[f64]>::to_vec).collect())
}

fn little_endian<const N: usize>(
    raw: &[u8],
    number: impl Fn([u8; N]) -> f64,
) -> Result<Vec<f64>, InferenceError> {
    let (numbers, rest) = raw.as_chunks::<N>();
    if rest.is_empty() {
        Ok(numbers.iter().map(|bytes| number(*bytes)).collect())
    } else {
        Err(bad("raw_input_contents[0]", "ends within an element"))
    }
}

/// The elements of the tensor `query`, BYTES [rows].
pub(crate) fn queries(request: &ModelInferRequest) -> Result<Vec<Vec<u8>>, InferenceError> {
    let input = Input::of(request, "query")?;
    let [rows] = input.shape::<1>()?;
    if input.datatype() != "BYTES" {
        return Err(bad("inputs[0].datatype", "must be BYTES"));
    }
    let queries = match input.raw {
        Some(raw) => byte_strings(raw)?,
        None => input.contents()?.bytes_contents.clone(),
    };
    if queries.len() == rows {
        Ok(queries)
    } else {
        Err(bad("inputs[0].shape", "does not fit the elements that were sent"))
    }
}

/// Byte strings, each after its length in 4 bytes.
fn byte_strings(mut raw: &[u8]) -> Result<Vec<Vec<u8>>, InferenceError> {
    let mut strings = vec![];
    while !raw.is_empty() {
        let cut = raw.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        });
        let (string, rest) = cut.ok_or_else(|| bad("raw_input_contents[0]", "ends within an element"))?;
        strings.push(string.to_vec());
        raw = rest;
    }
    Ok(strings)
}

/// A text parameter; `None` when it is absent.
pub(crate) fn text<'a>(
    request: &'a ModelInferRequest,
    name: &str,
) -> Result<Option<&'a str>, InferenceError> {
    match request.parameters.get(name) {
        None => Ok(None),
        Some(InferParameter {
            parameter_choice: Some(ParameterChoice::StringParam(text)),
        }) => Ok(Some(text)),
        Some(_) => Err(bad(&format!("parameters.{name}"), "must be a string")),
    }
}

pub(crate) fn parameter(text: String) -> InferParameter {
    InferParameter {
        parameter_choice: Some(ParameterChoice::StringParam(text)),
    }
}

/// The answer to a request: the outputs that it asks for, or all; raw when its input was.
///
/// # Errors
/// For an output that there is not.
pub(crate) fn respond(
    request: &ModelInferRequest,
    version: &str,
    outputs: Vec<Output>,
) -> Result<ModelInferResponse, InferenceError> {
    let known = |name: &str| outputs.iter().any(|output| output.name == name);
    if let Some(at) = request.outputs.iter().position(|wanted| !known(&wanted.name)) {
        let names: Vec<&str> = outputs.iter().map(|output| output.name).collect();
        return Err(bad(
            &format!("outputs[{at}].name"),
            format!("must be one of {}", names.join(", ")),
        ));
    }
    let wanted =
        |name: &str| request.outputs.is_empty() || request.outputs.iter().any(|wanted| wanted.name == name);
    let raw = !request.raw_input_contents.is_empty();
    let mut response = ModelInferResponse {
        model_name: request.model_name.clone(),
        model_version: version.to_owned(),
        id: request.id.clone(),
        ..ModelInferResponse::default()
    };
    for output in outputs.into_iter().filter(|output| wanted(output.name)) {
        let mut tensor = InferOutputTensor {
            name: output.name.to_owned(),
            datatype: output.elements.datatype().to_owned(),
            shape: output.shape,
            ..InferOutputTensor::default()
        };
        if raw {
            response.raw_output_contents.push(output.elements.raw());
        } else {
            tensor.contents = Some(output.elements.contents());
        }
        response.outputs.push(tensor);
    }
    Ok(response)
}

impl Elements {
    fn datatype(&self) -> &'static str {
        match self {
            Self::Numbers(_) => "FP64",
            Self::Bytes(_) => "BYTES",
        }
    }

    fn raw(&self) -> Vec<u8> {
        match self {
            Self::Numbers(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Self::Bytes(strings) => {
                let mut raw = vec![];
                for string in strings {
                    raw.extend_from_slice(&(string.len() as u32).to_le_bytes());
                    raw.extend_from_slice(string);
                }
                raw
            }
        }
    }

    fn contents(self) -> InferTensorContents {
        let mut contents = InferTensorContents::default();
        match self {
            Self::Numbers(numbers) => contents.fp64_contents = numbers,
            Self::Bytes(strings) => contents.bytes_contents = strings,
        }
        contents
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(name: &str, datatype: &str, shape: &[i64], raw: Vec<u8>) -> ModelInferRequest {
        ModelInferRequest {
            inputs: vec![InferInputTensor {
                name: name.into(),
                datatype: datatype.into(),
                shape: shape.to_vec(),
                ..InferInputTensor::default()
            }],
            raw_input_contents: vec![raw],
            ..ModelInferRequest::default()
        }
    }

    fn refused<T>(result: Result<T, InferenceError>, expected: &str) {
        match result {
            Err(InferenceError::Field { field, .. }) => assert_eq!(field, expected),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{expected} was not refused"),
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let raw = Elements::Numbers(vec![1.0, 2.0, 3.0, 4.0]).raw();
        assert_eq!(
            rows(&request("input", "FP64", &[2, 2], raw.clone())).unwrap(),
            [[1.0, 2.0], [3.0, 4.0]]
        );
        refused(
            rows(&request("other", "FP64", &[2, 2], raw.clone())),
            "inputs[0].name",
        );
        refused(
            rows(&request("input", "INT8", &[2, 2], raw.clone())),
            "inputs[0].datatype",
        );
        for shape in [
            &[2, 3][..],
            &[2, 0],
            &[4],
            &[-2, -2],
            &[1 << 40, 1 << 40],
            &[20_000, 0],
            &[],
        ] {
            refused(
                rows(&request("input", "FP64", shape, raw.clone())),
                "inputs[0].shape",
            );
        }
        refused(
            rows(&request("input", "FP64", &[2, 2], raw[..31].to_vec())),
            "raw_input_contents[0]",
        );
        let mut twice = request("input", "FP64", &[2, 2], raw.clone());
        twice.inputs[0].contents = Some(InferTensorContents::default());
        refused(rows(&twice), "raw_input_contents");
        twice.raw_input_contents.clear();
        refused(rows(&twice), "inputs[0].shape");
        twice.inputs[0].contents = None;
        refused(rows(&twice), "inputs[0].contents");
        twice.inputs.push(twice.inputs[0].clone());
        refused(rows(&twice), "inputs");
        refused(
            queries(&request("query", "BYTES", &[1], vec![9, 0, 0, 0, 1])),
            "raw_input_contents[0]",
        );
        refused(
            queries(&request("query", "BYTES", &[1], vec![])),
            "inputs[0].shape",
        );
    }

    #[test]
    fn only_the_outputs_asked_for_are_sent() {
        let outputs = || {
            vec![
                Output {
                    name: "probabilities",
                    shape: vec![1, 2],
                    elements: Elements::Numbers(vec![0.25, 0.75]),
                },
                Output {
                    name: "class",
                    shape: vec![1],
                    elements: Elements::Bytes(vec![b"ill".to_vec()]),
                },
            ]
        };
        let mut request = request("input", "FP64", &[1, 1], vec![0; 8]);
        let all = respond(&request, "clear", outputs()).unwrap();
        assert_eq!(all.raw_output_contents.len(), 2);
        assert_eq!(all.raw_output_contents[1], b"\x03\0\0\0ill");
        request.outputs.push(Default::default());
        refused(respond(&request, "clear", outputs()), "outputs[0].name");
        request.outputs[0].name = "class".into();
        request.raw_input_contents.clear();
        let one = respond(&request, "clear", outputs()).unwrap();
        assert!(one.outputs.len() == 1 && one.raw_output_contents.is_empty());
        assert_eq!(
            one.outputs[0].contents.as_ref().unwrap().bytes_contents,
            [b"ill".to_vec()]
        );
    }

    proptest! {
        #[test]
        fn byte_strings_come_back(strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..5)) {
            let raw = Elements::Bytes(strings.clone()).raw();
            let request = request("query", "BYTES", &[strings.len() as i64], raw);
            prop_assert_eq!(queries(&request).unwrap(), strings);
        }

        #[test]
        fn garbage_is_refused_without_a_panic(
            raw in prop::collection::vec(any::<u8>(), 0..40), shape in prop::collection::vec(any::<i64>(), 0..4),
        ) {
            for (name, datatype) in [("input", "FP32"), ("input", "FP64"), ("query", "BYTES")] {
                let request = request(name, datatype, &shape, raw.clone());
                let _ = (rows(&request), queries(&request));
            }
        }
    }
}
