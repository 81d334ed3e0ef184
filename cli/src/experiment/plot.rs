//! The plot of an experiment: speed-up over slots, with the ideal and the control.

use std::path::Path;
use std::sync::Once;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::table::Table;

/// Width and height. Unit: pixels.
const SIZE: (u32, u32) = (900, 640);

/// Colours that people with colour-blindness tell apart. Source: Okabe and Ito, "Color universal design" (2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Writes the plot as SVG.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn svg(table: &Table, path: &Path) -> Result<()> {
    draw(table, &SVGBackend::new(path, SIZE).into_drawing_area())
}

/// Writes the plot as PNG.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn png(table: &Table, path: &Path) -> Result<()> {
    draw(table, &BitMapBackend::new(path, SIZE).into_drawing_area())
}

/// The font is compiled in, so that a plot needs nothing of the machine.
fn font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Without a font texts are left out, which the returned error would say; the font is constant.
        let _ = plotters::style::register_font(
            "sans-serif",
            FontStyle::Normal,
            dejavu::sans::regular(),
        );
    });
}

fn draw<B: DrawingBackend>(table: &Table, area: &DrawingArea<B, Shift>) -> Result<()> {
    font();
    let wrong =
        |error: DrawingAreaErrorKind<B::ErrorType>| anyhow!("failed to draw the plot: {error}");
    area.fill(&WHITE).map_err(wrong)?;
    let groups = table.groups();
    let lines = || groups.iter().flatten();
    let most = lines().map(|line| line.row.cell.slots()).max().unwrap_or(1) as f64;
    let highest = lines()
        .flat_map(|line| [Some(line.speedup), line.control_speedup])
        .flatten()
        .fold(most, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption("Speed-up by slots (workers × threads)", ("sans-serif", 24))
        .margin(20)
        .x_label_area_size(50)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..most * 1.05, 0.0..highest * 1.05)
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .x_desc("slots")
        .y_desc("speed-up")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 18))
        .draw()
        .map_err(wrong)?;
    let grey = RGBColor(130, 130, 130);
    chart
        .draw_series(LineSeries::new([(0.0, 0.0), (most, most)], grey))
        .map_err(wrong)?
        .label("ideal")
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], grey));
    for (number, group) in groups.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let cell = &group[0].row.cell;
        let name = if cell.size == 0 {
            cell.workload.clone()
        } else {
            format!("{} {}", cell.workload, cell.size)
        };
        let points: Vec<(f64, f64)> = group
            .iter()
            .map(|line| (line.row.cell.slots() as f64, line.speedup))
            .collect();
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))
            .map_err(wrong)?
            .label(name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(2)));
        chart
            .draw_series(
                points
                    .iter()
                    .map(|point| Circle::new(*point, 4, colour.filled())),
            )
            .map_err(wrong)?;
        let control: Vec<(f64, f64)> = group
            .iter()
            .filter_map(|line| Some((line.row.cell.slots() as f64, line.control_speedup?)))
            .collect();
        if control.is_empty() {
            continue;
        }
        chart
            .draw_series(DashedLineSeries::new(control, 6, 5, colour.into()))
            .map_err(wrong)?
            .label(format!("{name}, plain processes"))
            .legend(move |(x, y)| {
                let dash = |from: i32| PathElement::new([(x + from, y), (x + from + 6, y)], colour);
                dash(9)
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(grey)
        .label_font(("sans-serif", 15))
        .draw()
        .map_err(wrong)?;
    area.present().map_err(wrong)
}
