package benchmarks

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
)

// board collects what the benchmarks of a run measured.
type board struct {
	mu     sync.Mutex
	tables []*table
}

// table is what one benchmark measured: works down, contenders across.
type table struct {
	title   string
	goals   map[string]string // by work: what the design asks for, in words
	notes   []string          // what a reader must know: what was skipped and why
	repeats int               // samples of the contender with the most
	rows    []*row
}

// row is one piece of work, done by one or several contenders.
type row struct {
	work, unit string
	order      []string
	samples    map[string][]float64
}

// Units of rows.
const (
	seconds    = "s"
	cpuSeconds = "CPU s"
	perSecond  = "1/s"
	mebibytes  = "MiB"
	percent    = "%"
	millis     = "ms"
	plainBytes = "B"
	rate       = "MiB/s"
)

// newTable starts a table that belongs to the run's results once it has rows.
func (b *board) newTable(title string, goals map[string]string) *table {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := &table{title: title, goals: goals}
	b.tables = append(b.tables, t)
	return t
}

func (b *board) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !slices.ContainsFunc(b.tables, func(t *table) bool { return len(t.rows) > 0 })
}

// markdown renders every table that has rows.
func (b *board) markdown() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out strings.Builder
	for _, t := range b.tables {
		if len(t.rows) > 0 {
			out.WriteString(t.markdown())
		}
	}
	return out.String()
}

// add records one sample of a contender.
func (t *table) add(work, unit, contender string, value float64) {
	i := slices.IndexFunc(t.rows, func(r *row) bool { return r.work == work })
	if i < 0 {
		i = len(t.rows)
		t.rows = append(t.rows, &row{work: work, unit: unit, samples: map[string][]float64{}})
	}
	r := t.rows[i]
	if r.samples[contender] == nil {
		r.order = append(r.order, contender)
	}
	r.samples[contender] = append(r.samples[contender], value)
	t.repeats = max(t.repeats, len(r.samples[contender]))
}

// note adds a sentence below the table, once.
func (t *table) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(t.notes, text) {
		t.notes = append(t.notes, text)
	}
}

// contenders lists the columns, the product first.
func (t *table) contenders() []string {
	names := []string{product}
	for _, r := range t.rows {
		for _, name := range r.order {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func (t *table) markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "## %s\n\n", t.title)
	names := t.contenders()
	cells := append([]string{"work", "unit"}, names...)
	for _, rival := range names[1:] {
		cells = append(cells, product+" ÷ "+rival)
	}
	writeCells(&out, append(cells, "asked for"))
	writeCells(&out, slices.Repeat([]string{"---"}, len(cells)+1))
	for _, r := range t.rows {
		cells := []string{r.work, r.unit}
		for _, name := range names {
			cells = append(cells, spread(r.samples[name]))
		}
		for _, rival := range names[1:] {
			cells = append(cells, ratio(r.samples[product], r.samples[rival]))
		}
		writeCells(&out, append(cells, t.goals[r.work]))
	}
	fmt.Fprintf(&out, "\nMedians (lowest–highest), up to %d samples each.\n", t.repeats)
	for _, note := range t.notes {
		fmt.Fprintf(&out, "%s\n", note)
	}
	out.WriteString("\n")
	return out.String()
}

func writeCells(out *strings.Builder, cells []string) {
	fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
}

// report hands the product's medians to the benchmark's own output and writes the
// file of the run, so that a later benchmark that is killed costs only itself.
func (t *table) report(b *testing.B) {
	b.ReportMetric(0, "ns/op") // of no use: one operation is all contenders together
	for _, r := range t.rows {
		name := strings.NewReplacer(" ", "-", ",", "").Replace(r.work)
		unit := strings.NewReplacer(" ", "-", "1/s", "per-s", "%", "percent").Replace(r.unit)
		if len(r.samples[product]) > 0 {
			b.ReportMetric(median(r.samples[product]), name+"-"+unit)
		}
	}
	if err := publish(); err != nil {
		b.Error(err)
	}
}

// median of no samples is NaN.
func median(samples []float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// spread renders a median with the range of the samples.
func spread(samples []float64) string {
	switch len(samples) {
	case 0:
		return ""
	case 1:
		return digits(samples[0])
	}
	return fmt.Sprintf("%s (%s–%s)", digits(median(samples)), digits(slices.Min(samples)), digits(slices.Max(samples)))
}

// ratio renders the quotient of two medians, empty when one is missing.
func ratio(a, b []float64) string {
	if len(a) == 0 || len(b) == 0 || median(b) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", median(a)/median(b))
}

// digits renders a value with about three significant digits.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
