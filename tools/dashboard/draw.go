package main

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

type drawnPanel struct {
	panel
	lines []line
}

// The grid of Grafana: 24 columns, rows of a fixed height.
const (
	columns      = 24
	columnWidth  = vg.Length(52)
	rowHeight    = vg.Length(24)
	gap          = vg.Length(5)
	dotsPerInch  = 96
	legendHeight = vg.Length(13)
	titleHeight  = vg.Length(15)
)

var (
	ink     = color.Gray{Y: 40}
	pale    = color.Gray{Y: 225}
	ground  = color.RGBA{R: 244, G: 245, B: 247, A: 255}
	palette = []color.Color{
		color.RGBA{R: 31, G: 119, B: 180, A: 255}, color.RGBA{R: 44, G: 160, B: 44, A: 255}, color.RGBA{R: 214, G: 39, B: 40, A: 255},
		color.RGBA{R: 255, G: 127, B: 14, A: 255}, color.RGBA{R: 148, G: 103, B: 189, A: 255}, color.RGBA{R: 23, G: 190, B: 207, A: 255},
		color.RGBA{R: 140, G: 86, B: 75, A: 255}, color.RGBA{R: 227, G: 119, B: 194, A: 255}, color.RGBA{R: 127, G: 127, B: 127, A: 255},
		color.RGBA{R: 188, G: 189, B: 34, A: 255},
	}
)

// drawAll writes all panels as one PNG.
func drawAll(w io.Writer, panels []drawnPanel, from, to time.Time, step time.Duration) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	rows := 0
	for _, p := range panels {
		rows = max(rows, p.GridPos.Y+p.GridPos.H)
	}
	width, height := columns*columnWidth+gap, vg.Length(rows)*rowHeight+gap
	image := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(dotsPerInch), vgimg.UseBackgroundColor(ground))
	all := draw.New(image)
	for _, p := range panels {
		left := vg.Length(p.GridPos.X)*columnWidth + gap
		top := height - vg.Length(p.GridPos.Y)*rowHeight - gap
		c := draw.Canvas{Canvas: all.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: left, Y: top - vg.Length(p.GridPos.H)*rowHeight + gap},
			Max: vg.Point{X: left + vg.Length(p.GridPos.W)*columnWidth - gap, Y: top},
		}}
		c.FillPolygon(color.White, []vg.Point{c.Min, {X: c.Max.X, Y: c.Min.Y}, c.Max, {X: c.Min.X, Y: c.Max.Y}})
		inner := draw.Crop(c, 6, -6, 4, -4)
		switch p.Type {
		case "stat":
			drawStat(inner, p)
		case "timeseries":
			if err := drawSeries(inner, p, from, to, step); err != nil {
				return fmt.Errorf("%s: %w", p.Title, err)
			}
		default:
			return fmt.Errorf("%s: panels of type %q are not known", p.Title, p.Type)
		}
	}
	_, err := vgimg.PngCanvas{Canvas: image}.WriteTo(w)
	return err
}

func style(size vg.Length, c color.Color) text.Style {
	s := plot.New().Title.TextStyle
	s.Font.Size, s.Color = size, c
	s.XAlign, s.YAlign = text.XLeft, text.YBottom
	return s
}

func drawStat(c draw.Canvas, p drawnPanel) {
	c.FillText(style(9, ink), vg.Point{X: c.Min.X, Y: c.Max.Y - titleHeight + 4}, p.Title)
	var values []string
	for _, l := range p.lines {
		last := l.y[len(l.y)-1]
		shown := format(last, p.FieldConfig.Defaults.Unit)
		for _, m := range p.FieldConfig.Defaults.Mappings {
			if o, ok := m.Options[shown]; ok {
				shown = o.Text
			}
		}
		values = append(values, strings.TrimSpace(shown+" "+l.name))
	}
	if len(values) == 0 {
		values = []string{"no data"}
	}
	big := style(22, palette[1])
	if len(values[0]) > 12 {
		big.Font.Size = 13
	}
	c.FillText(big, vg.Point{X: c.Min.X, Y: c.Min.Y + c.Size().Y/2 - big.Font.Size/2 - 4}, strings.Join(values, ", "))
}

func drawSeries(c draw.Canvas, p drawnPanel, from, to time.Time, step time.Duration) error {
	unit := p.FieldConfig.Defaults.Unit
	pl := plot.New()
	pl.BackgroundColor = color.White
	title := p.Title
	for _, axis := range []*plot.Axis{&pl.X, &pl.Y} {
		axis.Tick.Label.Font.Size, axis.Tick.Label.Color = 7, ink
		axis.Color, axis.Tick.Color = pale, pale
	}
	logarithmic := p.FieldConfig.Defaults.Custom.ScaleDistribution.Type == "log"
	least, most := math.Inf(1), 0.0
	for i, l := range p.lines {
		for part := range l.parts(step) {
			points := make(plotter.XYs, len(part.y))
			for j, y := range part.y {
				if logarithmic {
					y = max(y, 1e-3)
				}
				points[j] = plotter.XY{X: part.at[j].Sub(from).Seconds(), Y: y}
				least, most = min(least, y), max(most, y)
			}
			curve, err := plotter.NewLine(points)
			if err != nil {
				return err
			}
			curve.Color, curve.Width = palette[i%len(palette)], 1.2
			pl.Add(curve)
		}
	}
	if len(p.lines) > 0 && logarithmic {
		pl.Y.Scale = plot.LogScale{}
		pl.Y.Min, pl.Y.Max = math.Pow(10, math.Floor(math.Log10(least))), math.Pow(10, math.Ceil(math.Log10(most)))
	} else {
		pl.Y.Min, pl.Y.Max = 0, max(1, most*1.08)
		if most > 0 && most < 1 {
			pl.Y.Max = most * 1.08
		}
	}
	if len(p.lines) == 0 {
		title += ": no data"
	}
	pl.X.Min, pl.X.Max = 0, to.Sub(from).Seconds()
	pl.X.Tick.Marker = plot.TickerFunc(minutes)
	marker := plot.Ticker(plot.DefaultTicks{})
	if logarithmic {
		marker = plot.LogTicks{}
	}
	pl.Y.Tick.Marker = ticks{marker, func(v float64) string { return format(v, unit) }}
	pl.Add(plotter.NewGrid())
	c.FillText(style(9, ink), vg.Point{X: c.Min.X, Y: c.Max.Y - titleHeight + 4}, title)
	used := drawLegend(c, p.lines)
	pl.Draw(draw.Crop(c, 0, -4, used, -titleHeight))
	return nil
}

// drawLegend writes the names below the lines, and returns the room that it took.
func drawLegend(c draw.Canvas, lines []line) vg.Length {
	type entry struct {
		x    vg.Length
		row  int
		line int
	}
	s := style(8, ink)
	var entries []entry
	x, row := c.Min.X, 0
	for i, l := range lines {
		width := s.Width(l.name) + 22
		if x > c.Min.X && x+width > c.Max.X {
			x, row = c.Min.X, row+1
		}
		entries = append(entries, entry{x, row, i})
		x += width
	}
	for _, e := range entries {
		y := c.Min.Y + vg.Length(row-e.row)*legendHeight + 2
		c.StrokeLine2(draw.LineStyle{Color: palette[e.line%len(palette)], Width: 3}, e.x, y+3, e.x+10, y+3)
		c.FillText(s, vg.Point{X: e.x + 13, Y: y}, lines[e.line].name)
	}
	if len(lines) == 0 {
		return 0
	}
	return vg.Length(row+1) * legendHeight
}

// minutes marks the time since the beginning, at eight places at most.
func minutes(least, most float64) (all []plot.Tick) {
	step := 10.0
	for _, s := range []float64{20, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600} {
		if (most-least)/step > 8 {
			step = s
		}
	}
	for v := 0.0; v <= most; v += step {
		all = append(all, plot.Tick{Value: v, Label: fmt.Sprintf("%d:%02d", int(v)/60, int(v)%60)})
	}
	return all
}

// ticks writes the labels of others in units.
type ticks struct {
	plot.Ticker
	format func(float64) string
}

// Ticks returns the ticks.
func (t ticks) Ticks(least, most float64) []plot.Tick {
	all := t.Ticker.Ticks(least, most)
	for i := range all {
		if all[i].Label != "" {
			all[i].Label = t.format(all[i].Value)
		}
	}
	return all
}

// format writes a value in Grafana's unit.
func format(v float64, unit string) string {
	short := func(v float64) string {
		s := fmt.Sprintf("%.3g", v)
		if math.Abs(v) >= 1000 {
			s = fmt.Sprintf("%.3gk", v/1000)
		}
		return s
	}
	switch unit {
	case "s":
		if v > 0 && v < 1 {
			return short(v*1000) + " ms"
		}
		return short(v) + " s"
	case "bytes":
		for _, u := range []string{"B", "KiB", "MiB"} {
			if math.Abs(v) < 1024 {
				return short(v) + " " + u
			}
			v /= 1024
		}
		return short(v) + " GiB"
	case "reqps":
		return short(v) + "/s"
	}
	return short(v)
}
