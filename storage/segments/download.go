package segments

import (
	"cmp"
	"context"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/erasure"
)

// fetchesPerShard bounds a download, together with one fetch more for each
// member, so that members who only claim to have shards use nothing up.
const fetchesPerShard = 4

// download is one segment on its way here. One goroutine owns it.
type download struct {
	s       *Segments
	header  storage.SignedHeader
	coder   *erasure.Coder
	segment []byte   // of all data shards, the result
	slots   [][]byte // the place of each shard in segment, by shard
	shards  []downShard
	sources []source // not tried yet, best first
	known   map[source]bool
	results chan fetched
	left    int // fetches that may still be started
	found   <-chan found[[]storage.ShardAnswer]
	asked   bool
	good    int
	pace    pace
	causes  causes
	lost    []lostShard // that turned out not to have their shard, or a bad one
}

// lostShard is a shard that its source does not have after all, or a bad one.
type lostShard struct {
	source
	bad bool
}

// downShard is what is known of one shard.
type downShard struct {
	data    []byte // verified; nil: not yet
	sink    *sink  // that holds data
	running []*fetch
}

// fetch is an attempt to read one shard.
type fetch struct {
	*attempt
	sink    *sink
	holders []storage.Holder // that the peer keeps beside the shard; set when it ended
}

// fetched is how a fetch ended.
type fetched struct {
	*fetch
	err  error
	took time.Duration
}

func newDownload(s *Segments, known knowledge, buffer []byte) (*download, error) {
	h := known.header
	coder, err := erasure.New(h.Redundancy)
	if err != nil {
		return nil, err
	}
	size := h.Redundancy.K * h.ShardBytes
	if cap(buffer) < size {
		buffer = make([]byte, size)
	}
	n := h.Redundancy.N
	fetches := n*fetchesPerShard + len(s.cfg.Holders.Members())
	d := &download{
		s: s, header: h, coder: coder, segment: buffer[:size],
		shards: make([]downShard, n), known: map[source]bool{},
		results: make(chan fetched, fetches), left: fetches,
		pace: s.newPace(quietGet), found: known.found, asked: known.found != nil, causes: known.causes,
	}
	d.slots = coder.Slots(d.segment)
	d.add(known.sources)
	return d, nil
}

// run fetches until k shards are verified, then decodes.
func (d *download) run(ctx context.Context) ([]byte, error) {
	defer d.close()
	alarm := newAlarm()
	defer alarm.at(time.Time{})
	for {
		d.launch(ctx)
		if d.good >= d.header.Redundancy.K {
			return d.assemble()
		}
		if d.running() == 0 && d.found == nil {
			return nil, d.tooFew()
		}
		select {
		case f := <-d.results:
			if ctx.Err() != nil { // what ended it may look like a fault of the peer
				return nil, context.Cause(ctx)
			}
			d.take(f)
		case f, ok := <-d.found:
			d.learnt(f, ok)
		case now := <-alarm.at(d.nextEvent()):
			d.onTime(now)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// add takes in sources that were not known and puts the most promising first:
// this peer's own store, then peers that did not fail lately, then those that
// are not slow, then data shards, because they need no decoding.
func (d *download) add(sources []source) {
	for _, src := range sources {
		if src.shard < 0 || src.shard >= len(d.shards) || src.peer.IsZero() || d.known[src] {
			continue
		}
		d.known[src] = true
		d.sources = append(d.sources, src)
	}
	d.s.rank(d.sources, d.header.Redundancy.K)
}

// slowAgainstBest: a peer this many times slower than the best is slow.
const slowAgainstBest = 3

func (s *Segments) rank(sources []source, k int) {
	best := 0.0
	rates := map[grid.PeerID]float64{}
	for _, src := range sources {
		rates[src.peer] = s.peers.rate(src.peer)
		best = max(best, rates[src.peer])
	}
	class := func(src source) int {
		class := 0
		if src.peer == s.self {
			class -= 8
		}
		if s.peers.skip(src.peer, toGet) != nil {
			class += 4
		}
		if rate := rates[src.peer]; rate > 0 && rate*slowAgainstBest < best {
			class += 2
		}
		if src.shard >= k {
			class++
		}
		return class
	}
	slices.SortStableFunc(sources, func(a, b source) int { return cmp.Compare(class(a), class(b)) })
}

// launch starts fetches until enough are running at an ordinary pace, and asks
// all members once no source is left.
func (d *download) launch(ctx context.Context) {
	for d.good+d.sound() < d.header.Redundancy.K {
		if d.left == 0 {
			return
		}
		src, ok := d.next()
		if !ok {
			if !d.asked {
				d.asked, d.found = true, d.s.whoHas(ctx, d.header.ID)
			}
			return
		}
		d.start(ctx, src)
	}
}

// next takes the best source of a shard that is not on its way already.
func (d *download) next() (source, bool) {
	for i, src := range d.sources {
		if s := &d.shards[src.shard]; s.data == nil && !s.sound() {
			d.sources = slices.Delete(d.sources, i, i+1)
			return src, true
		}
	}
	return source{}, false
}

// sound reports whether the shard is being fetched at an ordinary pace.
func (s *downShard) sound() bool {
	return slices.ContainsFunc(s.running, func(f *fetch) bool { return !f.hedged })
}

func (d *download) sound() int {
	n := 0
	for i := range d.shards {
		if d.shards[i].data == nil && d.shards[i].sound() {
			n++
		}
	}
	return n
}

func (d *download) running() int {
	n := 0
	for i := range d.shards {
		n += len(d.shards[i].running)
	}
	return n
}

// learnt takes in what one member has.
func (d *download) learnt(f found[[]storage.ShardAnswer], ok bool) {
	if !ok {
		d.found = nil
		return
	}
	if f.err != nil {
		d.causes.add(f.peer, f.err)
		return
	}
	var sources []source
	for _, shard := range readable(f.answer) {
		sources = append(sources, source{f.peer, shard})
	}
	d.add(sources)
}

// each calls f with every fetch that runs; f may finish it.
func (d *download) each(f func(*fetch)) {
	for i := range d.shards {
		for _, running := range slices.Clone(d.shards[i].running) {
			f(running)
		}
	}
}

// attempts returns those of all fetches that run.
func (d *download) attempts() (all []*attempt) {
	d.each(func(f *fetch) { all = append(all, f.attempt) })
	return all
}

// nextEvent returns when time alone will change something.
func (d *download) nextEvent() time.Time {
	running := d.attempts()
	when := d.pace.nextEvent(running)
	for _, a := range running {
		when = earliest(when, a.idleAt())
	}
	return when
}

// onTime gives up fetches that stand still and marks those that are slow, so
// that another one is started beside each.
func (d *download) onTime(now time.Time) {
	d.each(func(f *fetch) {
		if !now.Before(f.idleAt()) {
			d.finish(f)
			f.cancel(ErrTimeout)
			d.failed(f, ErrTimeout)
			d.discard(f.sink)
		}
	})
	d.pace.hedge(d.attempts(), now)
}

// stop ends all fetches that still run and takes their memory back. Those that
// were slow are remembered as such.
func (d *download) stop() {
	d.each(func(f *fetch) {
		d.finish(f)
		f.cancel(errEnough)
		d.discard(f.sink)
		if f.hedged {
			d.s.peers.failed(f.peer, errStraggler, toGet)
		}
	})
}

// close gives all scratch memory back.
func (d *download) close() {
	d.stop()
	for i := range d.shards {
		if s := d.shards[i].sink; s != nil {
			d.discard(s)
		}
	}
}

// assemble puts the verified shards together and rebuilds the missing ones.
func (d *download) assemble() ([]byte, error) {
	d.stop() // slots that are being filled are needed now
	missing := false
	for i := range d.shards {
		switch s := &d.shards[i]; {
		case s.data == nil:
			missing = missing || i < d.header.Redundancy.K
		case i < d.header.Redundancy.K && s.sink.pooled:
			d.slots[i] = append(d.slots[i], s.data...)
		default:
			d.slots[i] = s.data
		}
	}
	if missing {
		if err := d.coder.Reconstruct(d.slots); err != nil {
			return nil, err
		}
	}
	d.s.headers.add(d.header)
	return d.segment[:d.header.Bytes], nil
}

func (d *download) tooFew() error {
	return &TooFewError{
		Segment: d.header.ID, Need: d.header.Redundancy.K, Of: d.header.Redundancy.N, Answered: d.good,
		Missing: d.causes.peersOf(), Causes: d.causes, kind: storage.ErrTooFewShards,
		lost: d.asked && d.left > 0 && !slices.ContainsFunc(d.causes, mayReturn),
	}
}

// mayReturn reports whether a peer that failed may give its shard later.
func mayReturn(cause PeerError) bool {
	return !is(cause.Err, storage.ErrCorrupt, storage.ErrNotFound, storage.ErrDeleted)
}
