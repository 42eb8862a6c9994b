package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	controlv1 "gotong/proto/control/v1"
)

// progressBar shows bytes done with rate and time left, and below it what the
// holders take or give, on a terminal only. A nil *progressBar shows nothing.
type progressBar struct {
	container *mpb.Progress
	bar       *mpb.Bar

	mu      sync.Mutex
	detail  string
	holders string
	rate    recentRate
}

// maxHolders bounds the holders that are shown.
const maxHolders = 6

// startProgress returns nil when standard error is no terminal or the output is
// JSON.
func (a *app) startProgress(verb string) *progressBar {
	if a.json || !isTerminal(a.stderr) {
		return nil
	}
	p := &progressBar{container: mpb.New(mpb.WithOutput(a.stderr), mpb.WithWidth(30))}
	text := func(f func(*progressBar) string) decor.Decorator {
		return decor.Any(func(decor.Statistics) string {
			p.mu.Lock()
			defer p.mu.Unlock()
			return f(p)
		})
	}
	p.bar = p.container.AddBar(0, mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(verb+" "), text((*progressBar).counts)),
		mpb.AppendDecorators(text((*progressBar).pace)),
		mpb.BarExtender(mpb.BarFillerFunc(p.fillHolders), false))
	return p
}

// set shows done of total bytes (0: not known yet) and what else there is to say.
func (p *progressBar) set(done, total uint64, detail string, holders []*controlv1.HolderRate) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.detail, p.holders = detail, holdersText(holders)
	p.rate.add(time.Now(), done, total)
	p.mu.Unlock()
	if total == 0 {
		done = 0 // an empty bar: how far it is nobody knows
	}
	p.bar.SetTotal(int64(max(total, done+1)), false)
	p.bar.SetCurrent(int64(done))
}

// stop removes the bar.
func (p *progressBar) stop() {
	if p == nil {
		return
	}
	p.bar.Abort(true)
	p.container.Wait()
}

// fillHolders writes the line below the bar.
func (p *progressBar) fillHolders(w io.Writer, _ decor.Statistics) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holders == "" {
		return nil
	}
	_, err := io.WriteString(w, p.holders+"\n")
	return err
}

// log writes a line to where the bar is, above it.
func (p *progressBar) log(to io.Writer, line string) {
	if p != nil {
		to = p.container
	}
	fmt.Fprintln(to, line)
}

func (p *progressBar) counts() string {
	done, total := p.rate.done, p.rate.total
	if total == 0 {
		return bytesText(done)
	}
	return fmt.Sprintf("%s / %s", bytesText(done), bytesText(total))
}

func (p *progressBar) pace() string {
	parts := []string{rateText(uint64(p.rate.perSecond()), time.Second)}
	if left, ok := p.rate.left(); ok {
		parts = append(parts, "ETA "+left.Round(time.Second).String())
	}
	if p.detail != "" {
		parts = append(parts, p.detail)
	}
	return " " + strings.Join(parts, ", ")
}

func holdersText(holders []*controlv1.HolderRate) string {
	if len(holders) == 0 {
		return ""
	}
	shown := slices.SortedFunc(slices.Values(holders), func(a, b *controlv1.HolderRate) int { return cmp.Compare(b.Bytes, a.Bytes) })
	shown = shown[:min(len(shown), maxHolders)]
	slices.SortFunc(shown, func(a, b *controlv1.HolderRate) int { return cmp.Compare(a.Name, b.Name) }) // so that they stay where they are
	var parts []string
	for _, h := range shown {
		parts = append(parts, printable(h.Name)+" "+rateText(uint64(h.BytesPerSecond), time.Second))
	}
	text := "  " + strings.Join(parts, "  ")
	if more := len(holders) - maxHolders; more > 0 {
		text += fmt.Sprintf("  and %d more", more)
	}
	return text
}

// rateWindow is the time over which a rate is taken.
const rateWindow = 15 * time.Second

// recentRate is the rate of the last rateWindow.
type recentRate struct {
	done, total uint64
	samples     []rateSample // oldest first
}

type rateSample struct {
	at   time.Time
	done uint64
}

func (r *recentRate) add(now time.Time, done, total uint64) {
	r.done, r.total = done, total
	r.samples = append(r.samples, rateSample{now, done})
	for len(r.samples) > 2 && now.Sub(r.samples[1].at) >= rateWindow {
		r.samples = r.samples[1:]
	}
}

func (r *recentRate) perSecond() float64 {
	if len(r.samples) < 2 {
		return 0
	}
	first, last := r.samples[0], r.samples[len(r.samples)-1]
	took := last.at.Sub(first.at).Seconds()
	if took <= 0 || last.done < first.done {
		return 0
	}
	return float64(last.done-first.done) / took
}

// maxLeft is beyond what anybody believes.
const maxLeft = 1000 * time.Hour

// left returns how long the rest takes at this rate.
func (r *recentRate) left() (time.Duration, bool) {
	rate := r.perSecond()
	if r.total <= r.done || rate <= 0 {
		return 0, false
	}
	seconds := float64(r.total-r.done) / rate
	return time.Duration(seconds * float64(time.Second)), seconds < maxLeft.Seconds()
}

// holderJSON is what one holder took or gave.
type holderJSON struct {
	Peer string  `json:"peer"`
	Name string  `json:"name"`
	Sent uint64  `json:"bytes"`
	Rate float64 `json:"bytes_per_second"`
}

func holdersJSON(holders []*controlv1.HolderRate) []holderJSON {
	var out []holderJSON
	for _, h := range holders {
		out = append(out, holderJSON{h.Peer, h.Name, h.Bytes, h.BytesPerSecond})
	}
	return out
}

// startSteps is startProgress for work that is counted in steps, not bytes.
func (a *app) startSteps() *stepBar {
	if a.json || !isTerminal(a.stderr) {
		return nil
	}
	s := &stepBar{container: mpb.New(mpb.WithOutput(a.stderr), mpb.WithWidth(30))}
	s.bar = s.container.AddBar(0, mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return s.text() })),
		mpb.AppendDecorators(decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)))
	return s
}

// stepBar shows how many steps of a piece of work are done. A nil *stepBar shows
// nothing.
type stepBar struct {
	container *mpb.Progress
	bar       *mpb.Bar

	mu   sync.Mutex
	last *controlv1.WorkProgress
}

func (s *stepBar) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch p := s.last; {
	case p == nil:
		return ""
	case p.Total > 0:
		return fmt.Sprintf("%s %d / %d ", printable(p.Doing), p.Done, p.Total)
	case p.Done > 0:
		return fmt.Sprintf("%s %d ", printable(p.Doing), p.Done)
	default:
		return printable(p.Doing) + " "
	}
}

func (s *stepBar) set(p *controlv1.WorkProgress) {
	s.mu.Lock()
	s.last = p
	s.mu.Unlock()
	s.bar.SetTotal(int64(max(p.Total, p.Done+1)), false)
	s.bar.SetCurrent(int64(p.Done))
}

func (s *stepBar) stop() {
	if s == nil {
		return
	}
	s.bar.Abort(true)
	s.container.Wait()
}

// showWork shows how far work is that is counted in steps.
func (a *app) showWork(bar *stepBar, p *controlv1.WorkProgress) error {
	if a.json {
		return a.printJSON(struct {
			Type  string `json:"type"`
			Doing string `json:"doing"`
			Done  uint64 `json:"done"`
			Total uint64 `json:"total,omitempty"`
			Bytes uint64 `json:"bytes,omitempty"`
		}{"progress", p.Doing, p.Done, p.Total, p.Bytes})
	}
	if bar != nil {
		bar.set(p)
	}
	return nil
}
