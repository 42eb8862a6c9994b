package cli

import (
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progressBar shows bytes done with rate and time left, on a terminal only. A
// nil *progressBar shows nothing.
type progressBar struct {
	container *mpb.Progress
	bar       *mpb.Bar
}

// startProgress returns nil when standard error is no terminal or the output is
// JSON.
func (a *app) startProgress(verb string) *progressBar {
	if a.json || !isTerminal(a.stderr) {
		return nil
	}
	container := mpb.New(mpb.WithOutput(a.stderr), mpb.WithWidth(40))
	bar := container.AddBar(0, mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(verb+" "), decor.Counters(decor.SizeB1000(0), "% .1f / % .1f")),
		mpb.AppendDecorators(decor.AverageSpeed(decor.SizeB1000(0), "% .1f"), decor.Name(" ETA "), decor.AverageETA(decor.ET_STYLE_GO)))
	return &progressBar{container, bar}
}

// set shows done of total bytes; a total of 0 is not known yet.
func (p *progressBar) set(done, total uint64) {
	if p == nil {
		return
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
