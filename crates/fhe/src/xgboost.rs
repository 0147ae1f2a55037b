//! Models that XGBoost trained: its JSON format (`Booster.save_model("model.json")`), version 1.x to 3.x.
//!
//! What is read: `gbtree` boosters of numeric splits with the objectives `binary:logistic`, `multi:softprob`, `multi:softmax`,
//! `reg:squarederror` and `reg:logistic`'s relatives that are named in the error otherwise. Bin edges are the model's own split
//! conditions, so that every split decision is exact, in single precision and for missing values as XGBoost makes it; clients
//! learn these values from their bundle. Format: the `model.schema` of XGBoost's documentation, "Introduction to Model IO".

use serde::Deserialize;

use crate::{
    FheError,
    model::{Body, Ensemble, Link, Missing, Model, Node, Tree},
};

/// Largest file.
const MAX_BYTES: usize = 256 << 20;

#[derive(Deserialize)]
struct File {
    learner: Learner,
}

#[derive(Deserialize)]
struct Learner {
    #[serde(default)]
    feature_names: Vec<String>,
    gradient_booster: Booster,
    learner_model_param: ModelParam,
    objective: Objective,
}

#[derive(Deserialize)]
struct Booster {
    name: String,
    model: Option<Forest>,
}

#[derive(Deserialize)]
struct Forest {
    tree_info: Vec<usize>,
    trees: Vec<XgbTree>,
}

#[derive(Deserialize)]
struct XgbTree {
    left_children: Vec<i64>,
    right_children: Vec<i64>,
    split_indices: Vec<usize>,
    split_conditions: Vec<f64>,
    default_left: Vec<Flag>,
    #[serde(default)]
    split_type: Vec<u8>,
    #[serde(default)]
    categories: Vec<i64>,
}

/// Older versions write `true`, newer ones `1`.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
enum Flag {
    Truth(bool),
    Number(u8),
}

impl Flag {
    fn is_set(self) -> bool {
        match self {
            Self::Truth(truth) => truth,
            Self::Number(number) => number != 0,
        }
    }
}

#[derive(Deserialize)]
struct ModelParam {
    base_score: String,
    num_class: String,
    num_feature: String,
}

#[derive(Deserialize)]
struct Objective {
    name: String,
}

fn bad(what: impl Into<String>) -> FheError {
    FheError::BadModel(what.into())
}

/// Reads a model. Features and classes have names of their own where the file has none.
///
/// # Errors
/// [`FheError::NotA`] for something else than such a file; [`FheError::BadModel`] for what is not served: other boosters or
/// objectives, categorical splits, trees that contradict themselves.
pub fn import(bytes: &[u8]) -> Result<Model, FheError> {
    if bytes.len() > MAX_BYTES {
        return Err(bad("the file is larger than 256 MiB"));
    }
    let file: File = serde_json::from_slice(bytes)
        .map_err(|_| FheError::NotA("a model in XGBoost's JSON format (save_model(\"model.json\"))"))?;
    let learner = file.learner;
    let forest = match (
        learner.gradient_booster.name.as_str(),
        learner.gradient_booster.model,
    ) {
        ("gbtree", Some(forest)) => forest,
        (other, _) => return Err(bad(format!("its booster is `{other}`, and `gbtree` is served"))),
    };
    let number = |text: &str| {
        text.parse::<usize>()
            .map_err(|_| bad("its parameters are no numbers"))
    };
    let features = number(&learner.learner_model_param.num_feature)?;
    let classes = number(&learner.learner_model_param.num_class)?;
    if features == 0 || features > crate::model::MAX_FEATURES || classes > crate::model::MAX_OUTPUTS {
        return Err(bad(format!("it has {features} features and {classes} classes")));
    }
    let objective = learner.objective.name.as_str();
    let (link, outputs, named) = match objective {
        "binary:logistic" => (Link::Logistic, 1, 2),
        "multi:softprob" | "multi:softmax" => (Link::Softmax, classes, classes),
        "reg:squarederror" => (Link::Identity, 1, 0),
        other => {
            return Err(bad(format!(
                "its objective is `{other}`; binary:logistic, multi:softprob, multi:softmax and reg:squarederror are served"
            )));
        }
    };
    let base = base_scores(&learner.learner_model_param.base_score, link, outputs)?;
    if forest.tree_info.len() != forest.trees.len() {
        return Err(bad("its trees and their classes do not fit each other"));
    }
    let codes = Codes::of(&forest, features)?;
    let trees = forest.trees.iter().zip(&forest.tree_info);
    let trees = trees.map(|(tree, output)| convert(tree, *output, &codes));
    let ensemble = Ensemble {
        trees: trees.collect::<Result<_, _>>()?,
        codes: codes.features,
        edges: codes.edges,
        single_precision: true,
        missing: codes.missing,
        base,
    };
    let feature_names = if learner.feature_names.len() == features {
        learner.feature_names
    } else {
        (0..features).map(|feature| format!("f{feature}")).collect()
    };
    let model = Model {
        features: feature_names,
        classes: (0..named).map(|class| class.to_string()).collect(),
        link,
        body: Body::Ensemble(ensemble),
    };
    model.check()?;
    Ok(model)
}

/// `base_score` is a probability for logistic models, and a list from version 3.1 on.
fn base_scores(text: &str, link: Link, outputs: usize) -> Result<Vec<f64>, FheError> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let given: Vec<f64> = inner
        .split(',')
        .map(|part| {
            part.trim()
                .parse::<f64>()
                .map_err(|_| bad("its base score is no number"))
        })
        .collect::<Result<_, _>>()?;
    let all: Vec<f64> = match given.as_slice() {
        [one] => vec![*one; outputs],
        many if many.len() == outputs => many.to_vec(),
        _ => return Err(bad("its base scores do not fit its classes")),
    };
    all.into_iter()
        .map(|score| match link {
            Link::Logistic if score > 0.0 && score < 1.0 => Ok((score / (1.0 - score)).ln()),
            Link::Logistic => Err(bad("its base score is no probability")),
            _ => Ok(score),
        })
        .collect()
}

/// How the features are coded: a feature has a code for each side to which its missing values go at some split.
struct Codes {
    /// By code.
    features: Vec<usize>,
    /// The split conditions, ascending.
    edges: Vec<Vec<f64>>,
    missing: Vec<Missing>,
    /// By feature: the code whose missing values go left, and the one whose go right.
    of: Vec<[Option<usize>; 2]>,
}

/// Which of a feature's codes.
fn side(default_left: Flag) -> usize {
    usize::from(!default_left.is_set())
}

impl Codes {
    fn of(forest: &Forest, features: usize) -> Result<Self, FheError> {
        let mut conditions: Vec<[Vec<f64>; 2]> = vec![Default::default(); features];
        for tree in &forest.trees {
            let count = tree.left_children.len();
            let fits = count > 0
                && count <= crate::model::MAX_NODES
                && [tree.right_children.len(), tree.split_indices.len()] == [count; 2]
                && [tree.split_conditions.len(), tree.default_left.len()] == [count; 2];
            if !fits {
                return Err(bad("the lists of a tree differ in length"));
            }
            if !tree.categories.is_empty() || tree.split_type.iter().any(|kind| *kind != 0) {
                return Err(bad("it splits on categories, and numeric splits are served"));
            }
            for at in (0..count).filter(|at| tree.left_children[*at] >= 0) {
                let condition = tree.split_conditions[at];
                if !condition.is_finite() {
                    return Err(bad("a split condition is not finite"));
                }
                let of_feature = conditions
                    .get_mut(tree.split_indices[at])
                    .ok_or_else(|| bad("a split names an unknown feature"))?;
                of_feature[side(tree.default_left[at])].push(single(condition));
            }
        }
        let mut codes = Self {
            features: vec![],
            edges: vec![],
            missing: vec![],
            of: vec![[None; 2]; features],
        };
        for (feature, sides) in conditions.into_iter().enumerate() {
            let unused = sides.iter().all(Vec::is_empty);
            for (side, mut edges) in sides.into_iter().enumerate() {
                // A feature that no split looks at has a code all the same.
                if edges.is_empty() && !(unused && side == 0) {
                    continue;
                }
                edges.sort_by(f64::total_cmp);
                edges.dedup();
                codes.of[feature][side] = Some(codes.features.len());
                codes.features.push(feature);
                codes.edges.push(edges);
                codes.missing.push([Missing::Left, Missing::Right][side]);
            }
        }
        Ok(codes)
    }
}

/// The value that XGBoost compares with. Adding zero makes one zero of both.
fn single(condition: f64) -> f64 {
    f64::from(condition as f32) + 0.0
}

/// Nodes in the order of a walk from the root: children after their parents, and none that cannot be reached.
fn convert(tree: &XgbTree, output: usize, codes: &Codes) -> Result<Tree, FheError> {
    let mut nodes = vec![];
    // (index in the file, place here)
    let mut open = vec![(0usize, 0usize)];
    nodes.push(Node::Leaf(vec![]));
    while let Some((from, to)) = open.pop() {
        if nodes.len() > tree.left_children.len() + 2 {
            return Err(bad("a tree reaches a node twice"));
        }
        let (left, right) = (tree.left_children[from], tree.right_children[from]);
        if left < 0 && right < 0 {
            nodes[to] = Node::Leaf(vec![single(tree.split_conditions[from])]);
            continue;
        }
        let child = |index: i64| {
            let index = usize::try_from(index).ok();
            index
                .filter(|index| *index < tree.left_children.len())
                .ok_or_else(|| bad("a tree names an unknown child"))
        };
        let (left, right) = (child(left)?, child(right)?);
        let code = codes.of[tree.split_indices[from]][side(tree.default_left[from])]
            .ok_or_else(|| bad("a tree reaches a split that is none"))?;
        let condition = single(tree.split_conditions[from]);
        let edge = codes.edges[code].partition_point(|edge| *edge < condition);
        let place = nodes.len();
        nodes.push(Node::Leaf(vec![]));
        nodes.push(Node::Leaf(vec![]));
        nodes[to] = Node::Split {
            feature: code,
            edge,
            left: place,
            right: place + 1,
        };
        open.push((left, place));
        open.push((right, place + 1));
    }
    Ok(Tree { output, nodes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `save_model` writes it, but for fields that are not read.
    fn file(objective: &str, classes: usize, base: &str, info: &str, trees: &[&str]) -> String {
        let trees = trees.join(",");
        format!(
            r#"{{"learner":{{"attributes":{{}},"feature_names":["age","mass"],"feature_types":["float","float"],
            "gradient_booster":{{"model":{{"gbtree_model_param":{{"num_trees":"2"}},"tree_info":{info},"trees":[{trees}]}},"name":"gbtree"}},
            "learner_model_param":{{"base_score":"{base}","num_class":"{classes}","num_feature":"2","num_target":"1"}},
            "objective":{{"name":"{objective}"}}}},"version":[2,1,0]}}"#
        )
    }

    const STUMP: &str = r#"{"id":0,"base_weights":[0,0,0],"categories":[],"default_left":[1,0,0],"left_children":[1,-1,-1],
        "right_children":[2,-1,-1],"split_conditions":[0.1,-0.5,0.75],"split_indices":[1,0,0],"split_type":[0,0,0]}"#;
    const DEEP: &str = r#"{"id":1,"categories":[],"default_left":[false,true,false,false,false],"left_children":[2,-1,4,-1,-1],
        "right_children":[1,-1,3,-1,-1],"split_conditions":[50,1.5,0.1,2.5,-3.5],"split_indices":[0,0,1,0,0],"split_type":[0,0,0,0,0]}"#;

    #[test]
    fn binary_models_are_read_with_their_splits_in_single_precision() {
        let text = file("binary:logistic", 0, "2.5E-1", "[0,0]", &[STUMP, DEEP]);
        let model = import(text.as_bytes()).unwrap();
        assert_eq!(
            (model.features.as_slice(), model.classes.len()),
            (&["age".to_owned(), "mass".into()][..], 2)
        );
        let base = (0.25f64 / 0.75).ln();
        let score = |row: [f64; 2]| model.scores(&row).unwrap()[0] - base;
        // 0.1 in single precision is 0.100000001490116: the double below it is not below the split, after rounding.
        assert_eq!(score([60.0, 0.1]), 0.75 + 1.5);
        assert_eq!(score([49.0, 0.099]), -0.5 - 3.5);
        assert_eq!(score([50.0, 0.0]), -0.5 + 1.5);
        assert_eq!(score([0.0, 1.0]), 0.75 + 2.5);
        // Missing values of feature 0 go right at its only split; those of feature 1 left in one tree, right in the other.
        assert_eq!(score([f64::NAN, 1.0]), 0.75 + 1.5);
        assert_eq!(score([60.0, f64::NAN]), -0.5 + 1.5);
        assert_eq!(score([0.0, f64::NAN]), -0.5 + 2.5);
    }

    #[test]
    fn several_classes_take_their_trees_in_turn() {
        let text = file("multi:softprob", 3, "[5E-1,2.5E-1,0E0]", "[0,2]", &[STUMP, DEEP]);
        let model = import(text.as_bytes()).unwrap();
        assert_eq!(model.link, Link::Softmax);
        assert_eq!(model.scores(&[60.0, 0.0]).unwrap(), [0.0, 0.25, 1.5]);
    }

    #[test]
    fn what_is_not_served_is_named() {
        let good = file("binary:logistic", 0, "5E-1", "[0,0]", &[STUMP, DEEP]);
        assert!(import(good.as_bytes()).is_ok());
        for (from, to, expected) in [
            ("binary:logistic", "rank:pairwise", "rank:pairwise"),
            ("\"name\":\"gbtree\"", "\"name\":\"dart\"", "dart"),
            ("\"categories\":[]", "\"categories\":[3]", "categories"),
            (
                "\"split_indices\":[1,",
                "\"split_indices\":[7,",
                "unknown feature",
            ),
            ("\"left_children\":[1,", "\"left_children\":[9,", "unknown child"),
            ("\"left_children\":[1,", "\"left_children\":[0,", "twice"),
            (
                "\"left_children\":[1,-1,",
                "\"left_children\":[1,",
                "differ in length",
            ),
            ("\"base_score\":\"5E-1\"", "\"base_score\":\"2\"", "probability"),
            ("\"tree_info\":[0,0]", "\"tree_info\":[0,9]", "outputs"),
            ("{\"learner\"", "{\"teacher\"", "not a model in XGBoost"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = import(good.replacen(from, to, 1).as_bytes())
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{from} -> {to}: {error}");
        }
    }
}
