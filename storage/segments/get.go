package segments

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gotong/grid"
	"gotong/storage"
	"gotong/storage/erasure"
)

// BufferBytes is a capacity that holds any segment with its padding.
const BufferBytes = storage.MaxSegmentBytes + 64*storage.MaxShards

// Hint is what the caller of Get and Range knows. All of it may be missing,
// which costs round trips; none of it is believed.
type Hint struct {
	Header  storage.SignedHeader // of that segment
	Holders []storage.Holder     // who was given which shard
	Buffer  []byte               // memory for the result of Get, if its capacity suffices (see BufferBytes)
}

// Get returns the bytes of a segment. Every shard was verified against the
// header, and the header against id. When fewer than k shards can be had from
// all members together the error is a *TooFewError.
func (s *Segments) Get(ctx context.Context, id storage.SegmentID, hint Hint) ([]byte, error) {
	data, err := s.get(ctx, id, hint)
	if err != nil {
		return nil, fmt.Errorf("get segment: %w", err)
	}
	return data, nil
}

func (s *Segments) get(ctx context.Context, id storage.SegmentID, hint Hint) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errEnough)
	known, err := s.learn(ctx, id, hint)
	if err != nil {
		return nil, err
	}
	h := known.header
	release, err := s.reserve(ctx, (h.Redundancy.K+min(h.Redundancy.K, h.Redundancy.N-h.Redundancy.K))*h.ShardBytes)
	if err != nil {
		return nil, err
	}
	defer release()
	d, err := newDownload(s, known, hint.Buffer)
	if err != nil {
		return nil, err
	}
	return d.run(ctx)
}

// Bound of a download.
const fetchesPerShard = 4 // on average, hedges and bad holders included

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
	d := &download{
		s: s, header: h, coder: coder, segment: buffer[:size],
		shards: make([]downShard, n), known: map[source]bool{},
		results: make(chan fetched, n*fetchesPerShard), left: n * fetchesPerShard,
		found: known.found, asked: known.found != nil, causes: known.causes,
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
// peers that did not fail lately, then those that are not slow, then data
// shards, because they need no decoding.
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

// start fetches a shard into its place in the segment, or into scratch memory
// when it has none or another fetch is using it.
func (d *download) start(ctx context.Context, src source) {
	d.left--
	f := &fetch{attempt: newAttempt(ctx, src.peer, src.shard, d.s.cfg.IdleTimeout), sink: new(sink)}
	f.sink.moved = func() { f.beat(d.s.cfg.IdleTimeout) }
	s := &d.shards[src.shard]
	if cap(d.slots[src.shard]) > 0 && len(s.running) == 0 {
		f.sink.dst = d.slots[src.shard][:d.header.ShardBytes]
	} else {
		f.sink.dst, f.sink.pooled = d.s.buffers.get(d.header.ShardBytes), true
	}
	s.running = append(s.running, f)
	d.s.running.Go(func() {
		err := d.s.fetch(f, d.header)
		d.results <- fetched{f, err, time.Since(f.started)}
	})
}

// fetch reads and verifies one shard.
func (s *Segments) fetch(f *fetch, header storage.SignedHeader) error {
	store, err := s.cfg.Holders.Shards(f.peer)
	if err != nil {
		return err
	}
	r, err := store.OpenShard(f.ctx, storage.ShardID{Segment: header.ID, Index: f.shard}, 0, -1)
	if err != nil {
		return cause(f.ctx, err)
	}
	defer r.Close()
	f.beat(s.cfg.IdleTimeout)
	f.holders = r.Holders()
	if err := f.sink.fill(r, &s.buffers); err != nil {
		return cause(f.ctx, err)
	}
	return f.sink.verify(header.Roots[f.shard])
}

// take notes how a fetch ended.
func (d *download) take(f fetched) {
	if f.over {
		return
	}
	d.finish(f.fetch)
	f.cancel(errEnough)
	d.addHolders(f.holders)
	s := &d.shards[f.shard]
	if f.err != nil {
		d.failed(f.fetch, f.err)
		d.discard(f.sink)
		return
	}
	if s.data != nil { // another fetch was faster
		d.discard(f.sink)
		return
	}
	s.data, s.sink = f.sink.dst, f.sink
	d.good++
	d.pace.add(f.took)
	d.s.peers.worked(f.peer, len(s.data), f.took)
	for len(s.running) > 0 {
		other := s.running[0]
		d.finish(other)
		other.cancel(errEnough)
		d.discard(other.sink)
	}
}

func (d *download) addHolders(holders []storage.Holder) {
	if len(holders) <= storage.MaxHolders {
		d.add(sourcesOf(holders))
	}
}

func sourcesOf(holders []storage.Holder) []source {
	out := make([]source, len(holders))
	for i, h := range holders {
		out[i] = source{h.Peer, h.Shard}
	}
	return out
}

// finish takes a fetch off the list of those that run.
func (d *download) finish(f *fetch) {
	f.over = true
	s := &d.shards[f.shard]
	s.running = slices.DeleteFunc(s.running, func(other *fetch) bool { return other == f })
}

// discard takes the memory of a sink back.
func (d *download) discard(s *sink) {
	if dst := s.close(); dst != nil && s.pooled {
		d.s.buffers.put(dst)
	}
}

// failed notes why a peer did not give a shard, and whether it lied.
func (d *download) failed(f *fetch, err error) {
	d.causes.add(f.peer, err)
	d.s.peers.failed(f.peer, err, toGet)
	if errors.Is(err, storage.ErrCorrupt) {
		d.s.lied(f.peer, storage.ShardID{Segment: d.header.ID, Index: f.shard}, err)
	}
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

// nextEvent returns when time alone will change something.
func (d *download) nextEvent() (when time.Time) {
	d.each(func(f *fetch) {
		when = earliest(when, f.idleAt())
		if !f.hedged {
			when = earliest(when, d.overdueAt(f))
		}
	})
	return when
}

func (d *download) overdueAt(f *fetch) time.Time {
	return f.overdueAt(d.s.cfg.HedgeMin, d.s.cfg.HedgeFactor, d.pace)
}

// onTime gives up fetches that stand still and lets another one start beside
// each that is slow.
func (d *download) onTime(now time.Time) {
	d.each(func(f *fetch) {
		switch {
		case !now.Before(f.idleAt()):
			d.finish(f)
			f.cancel(errIdle)
			d.failed(f, errIdle)
			d.discard(f.sink)
		case !f.hedged && !now.Before(d.overdueAt(f)):
			f.hedged = true
		}
	})
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
	}
}
