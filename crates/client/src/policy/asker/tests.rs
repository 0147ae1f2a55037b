use std::cell::{Cell, RefCell};

use super::*;

fn question(verb: &'static str, resource: &str) -> Question {
    Question {
        principal: "user/bob".to_owned(),
        roles: vec!["analyst"],
        verb,
        resource: resource.to_owned(),
        owner: "user/alice".to_owned(),
        network: "10.0.0.1".parse().ok(),
    }
}

/// A kms that allows some verbs, or is down, and a clock that stands still.
struct World {
    answers: Answers,
    now: Cell<Instant>,
    allowed: RefCell<Vec<&'static str>>,
    down: Cell<bool>,
    asked: RefCell<Vec<String>>,
}

impl World {
    fn new(allowed: &[&'static str]) -> Self {
        Self {
            answers: Answers::default(),
            now: Cell::new(Instant::now()),
            allowed: RefCell::new(allowed.to_vec()),
            down: Cell::new(false),
            asked: RefCell::new(vec![]),
        }
    }

    async fn judge(&self, question: Question) -> Result<Verdict, ClientError> {
        let check = async |request: pb::CheckAccessRequest| {
            assert_eq!(
                (request.owner.as_str(), request.network.as_deref()),
                ("user/alice", Some("10.0.0.1"))
            );
            if self.down.get() {
                return Err(ClientError::Protocol("down"));
            }
            let allowed = self.allowed.borrow().contains(&request.verb.as_str());
            self.asked.borrow_mut().push(request.verb);
            Ok(allowed)
        };
        self.answers.judge(question, || self.now.get(), check).await
    }

    fn after(&self, time: Duration) {
        self.now.set(self.now.get() + time);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.take()
    }
}

#[tokio::test]
async fn refused_is_who_may_see_it_and_others_are_told_that_it_is_not_there() {
    let world = World::new(&["get", "predict"]);
    let verdict = async |verb| world.judge(question(verb, "models/x")).await.ok();
    assert_eq!(verdict("predict").await, Some(Verdict::Allowed));
    assert_eq!(
        world.asked(),
        ["predict"],
        "who may do it is not asked about further"
    );
    assert_eq!(verdict("delete").await, Some(Verdict::Denied));
    world.allowed.borrow_mut().clear();
    world.after(ANSWERS_HOLD_FOR);
    assert_eq!(verdict("delete").await, Some(Verdict::Hidden));
    assert_eq!(verdict("get").await, Some(Verdict::Hidden));
}

#[tokio::test]
async fn an_answer_holds_for_two_seconds_from_when_it_was_asked_for() {
    let world = World::new(&["read"]);
    let read = async || world.judge(question("read", "datasets/x")).await.ok();
    assert_eq!(read().await, Some(Verdict::Allowed));
    world.allowed.borrow_mut().clear();
    world.after(ANSWERS_HOLD_FOR - Duration::from_millis(1));
    assert_eq!(read().await, Some(Verdict::Allowed));
    assert_eq!(world.asked(), ["read"]);
    world.after(Duration::from_millis(1));
    assert_eq!(read().await, Some(Verdict::Hidden));
    // A refusal is no older than that either.
    world.allowed.borrow_mut().push("read");
    assert_eq!(read().await, Some(Verdict::Hidden));
    world.after(ANSWERS_HOLD_FOR);
    assert_eq!(read().await, Some(Verdict::Allowed));
}

#[tokio::test]
async fn every_part_of_a_question_counts() {
    let world = World::new(&["read"]);
    let asked = question("read", "datasets/x");
    world.judge(asked.clone()).await.ok();
    world.asked();
    let mut others = vec![asked.clone(); 3];
    others[0].principal = "user/carol".to_owned();
    others[1].roles.push("viewer");
    others[2].resource = "datasets/y".to_owned();
    for other in others {
        world.judge(other).await.ok();
        assert_eq!(world.asked(), ["read"]);
    }
    let elsewhere = Question {
        network: "10.0.0.2".parse().ok(),
        ..asked
    };
    assert_eq!(world.answers.known(&elsewhere, world.now.get()), None);
}

#[tokio::test]
async fn without_kms_nothing_passes_and_nothing_is_remembered() {
    let world = World::new(&["read"]);
    let read = async || world.judge(question("read", "datasets/x")).await;
    world.down.set(true);
    assert!(read().await.is_err());
    world.down.set(false);
    assert_eq!(read().await.ok(), Some(Verdict::Allowed));
    world.down.set(true);
    assert_eq!(read().await.ok(), Some(Verdict::Allowed), "known for two seconds");
    world.after(ANSWERS_HOLD_FOR);
    assert!(read().await.is_err());
}

#[test]
fn there_are_never_more_answers_than_there_may_be() {
    let answers = Answers::default();
    let start = Instant::now();
    let kept = |answers: &Answers| answers.kept.lock().map_or(0, |kept| kept.len());
    for index in 0..3 * MAX_ANSWERS {
        answers.keep(question("get", &format!("models/{index}")), true, start);
        assert!(kept(&answers) <= MAX_ANSWERS);
    }
    let last = question("get", &format!("models/{}", 3 * MAX_ANSWERS - 1));
    assert_eq!(answers.known(&last, start), Some(true));
    // What is too old goes first.
    let full = Answers::default();
    for index in 0..MAX_ANSWERS {
        let asked = if index < 100 {
            start + ANSWERS_HOLD_FOR
        } else {
            start
        };
        full.keep(question("get", &format!("models/{index}")), true, asked);
    }
    let now = start + ANSWERS_HOLD_FOR;
    full.keep(question("get", "models/new"), true, now);
    assert_eq!(kept(&full), 101);
    assert_eq!(full.known(&question("get", "models/0"), now), Some(true));
}
