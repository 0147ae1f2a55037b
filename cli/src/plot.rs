//! Pictures, as SVG.

use asterism_client::proto::inference::Evaluation;
use plotters::prelude::{
    BLACK, ChartBuilder, Color as _, EmptyElement, IntoDrawingArea as _, IntoFont as _,
    IntoSegmentedCoord as _, RGBColor, Rectangle, SVGBackend, SegmentValue, Text, TextStyle, WHITE,
};

use crate::error::CliError;

const OVERALL: RGBColor = RGBColor(38, 84, 124);
const PER_CLASS: [RGBColor; 3] = [
    RGBColor(239, 71, 111),
    RGBColor(255, 167, 38),
    RGBColor(6, 150, 104),
];
const SIZE: (u32, u32) = (960, 480);
/// Classes beyond these would be too thin to read.
const MAX_CLASSES: usize = 8;

/// A bar chart of an evaluation: accuracy and ROC AUC, then precision, recall and F1 of each class.
pub fn evaluation(title: &str, evaluation: &Evaluation) -> Result<String, CliError> {
    let mut bars = vec![
        ("accuracy".to_owned(), evaluation.accuracy, OVERALL),
        ("ROC AUC".to_owned(), evaluation.roc_auc, OVERALL),
    ];
    for class in evaluation.per_class.iter().take(MAX_CLASSES) {
        let figures = [
            ("precision", class.precision),
            ("recall", class.recall),
            ("F1", class.f1),
        ];
        for ((name, value), color) in figures.into_iter().zip(PER_CLASS) {
            bars.push((format!("{name} {}", class.class), value, color));
        }
    }
    bar_chart(title, &bars).map_err(|error| CliError::Other(format!("cannot draw the evaluation: {error}")))
}

/// Bars with values in 0..=1, each with its name below and its value above.
fn bar_chart(title: &str, bars: &[(String, f64, RGBColor)]) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let count = i32::try_from(bars.len())?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 22).into_font())
            .margin(16)
            .x_label_area_size(56)
            .y_label_area_size(48)
            .build_cartesian_2d((0..count - 1).into_segmented(), 0.0..1.08)?;
        let name = |at: &SegmentValue<i32>| match at {
            SegmentValue::CenterOf(index) => usize::try_from(*index)
                .ok()
                .and_then(|i| bars.get(i))
                .map_or_else(String::new, |b| b.0.clone()),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_labels(11)
            .y_label_formatter(&|value| format!("{value:.1}"))
            .x_labels(bars.len())
            .x_label_formatter(&name)
            .x_label_style(("sans-serif", 12).into_font())
            .light_line_style(WHITE)
            .draw()?;
        let style = TextStyle::from(("sans-serif", 13).into_font()).color(&BLACK);
        for (index, (_, value, color)) in (0..count).zip(bars) {
            let corners = [
                (SegmentValue::Exact(index), 0.0),
                (SegmentValue::Exact(index + 1), *value),
            ];
            let mut bar = Rectangle::new(corners, color.filled());
            bar.set_margin(0, 0, 6, 6);
            chart.draw_series([bar])?;
            let label = EmptyElement::at((SegmentValue::CenterOf(index), *value))
                + Text::new(format!("{value:.3}"), (-16, -18), style.clone());
            chart.draw_series([label])?;
        }
        area.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use asterism_client::proto::inference::ClassMetrics;

    use super::*;

    #[test]
    fn a_chart_shows_every_figure() {
        let class = ClassMetrics {
            class: "benign".into(),
            precision: 0.25,
            recall: 0.5,
            f1: 0.333,
            support: 9,
        };
        let figures = Evaluation {
            rows: 9,
            accuracy: 0.875,
            roc_auc: 0.9375,
            per_class: vec![class],
            ..Default::default()
        };
        let svg = evaluation("a model", &figures).expect("drawn");
        for text in [
            "a model",
            "accuracy",
            "0.875",
            "0.938",
            "precision benign",
            "0.250",
            "F1 benign",
        ] {
            assert!(svg.contains(text), "{text} is missing");
        }
    }
}
