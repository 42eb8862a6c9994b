package jobs

import (
	"context"
	"slices"
	"sync"
	"time"
)

// How results are written.
const (
	// flushEvery is how long a result waits for others before it is written.
	flushEvery = 10 * time.Millisecond
	// flushBytes is how much a record carries, but for a single larger result.
	flushBytes = 1 << 20
	// waitBytes is how much may wait to be written before whoever brings results
	// has to wait.
	waitBytes = 8 << 20
)

// recorder writes results into the journal, many at once.
type recorder struct {
	drive *drive
	stop  context.CancelCauseFunc // of the drive, when nothing can be written

	mu      sync.Mutex
	cond    sync.Cond // something was added or written
	pending []*Record // to be written, the last is being filled
	bytes   int       // in pending
	filling int       // bytes in the last
	results int       // in the last
	last    *Batch    // of the result that was added last
	writing bool
	err     error
	closed  bool
	done    chan struct{}
}

func newRecorder(d *drive, stop context.CancelCauseFunc) *recorder {
	r := &recorder{drive: d, stop: stop, done: make(chan struct{})}
	r.cond.L = &r.mu
	go r.run()
	return r
}

// add has a result written soon. It waits when too much is waiting.
func (r *recorder) add(res Result, trust []Trust) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.err == nil && r.bytes > waitBytes {
		r.cond.Wait()
	}
	if r.err != nil {
		return r.err
	}
	record := r.room(res)
	record.Results = append(record.Results, res)
	for _, t := range trust {
		i := slices.IndexFunc(record.Trust, func(old Trust) bool { return old.Peer == t.Peer })
		if i < 0 {
			i = len(record.Trust)
			record.Trust = append(record.Trust, Trust{})
		}
		record.Trust[i] = t
	}
	r.cond.Broadcast()
	return nil
}

// put has anything else written soon.
func (r *recorder) put(fill func(*Record)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending, r.filling, r.results, r.last = append(r.pending, r.drive.record(fill)), flushBytes, 0, nil
	r.cond.Broadcast()
}

// The lists that recorder.tried adds to.
func triedOfRecord(r *Record) *[]Tried { return &r.Tried }
func lostOfRecord(r *Record) *[]Tried  { return &r.Lost }

// tried has a run written soon that brought no result; it never waits.
func (r *recorder) tried(t Tried, of func(*Record) *[]Tried) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.pending); n == 0 || len(r.pending[n-1].Tried)+len(r.pending[n-1].Lost) == 0 || len(*of(r.pending[n-1])) >= maxTried {
		r.pending = append(r.pending, r.drive.record(func(*Record) {}))
		r.filling, r.results, r.last = flushBytes, 0, nil
	}
	list := of(r.pending[len(r.pending)-1])
	*list = append(*list, t)
	r.cond.Broadcast()
}

// room returns the record that takes the result.
func (r *recorder) room(res Result) *Record {
	size := res.size()
	if res.Batch != nil && (r.last == nil || string(r.last.Signature) != string(res.Batch.Signature)) {
		size += res.Batch.size()
	}
	if n := len(r.pending); n > 0 && r.filling+size <= flushBytes && r.results+1+len(res.Votes) <= MaxRecordResults {
		r.filling += size
		r.results += 1 + len(res.Votes)
		r.bytes, r.last = r.bytes+size, res.Batch
		return r.pending[n-1]
	}
	if res.Batch != nil && r.last != nil && string(r.last.Signature) == string(res.Batch.Signature) {
		size += res.Batch.size() // a new record has it anew
	}
	r.pending = append(r.pending, r.drive.record(func(*Record) {}))
	r.filling, r.results, r.last = size, 1+len(res.Votes), res.Batch
	r.bytes += size
	return r.pending[len(r.pending)-1]
}

// sync returns when all that was added is durable.
func (r *recorder) sync() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.err == nil && (len(r.pending) > 0 || r.writing) {
		r.cond.Wait()
	}
	return r.err
}

// close writes what is left and ends the recorder.
func (r *recorder) close() error {
	r.mu.Lock()
	r.closed = true
	r.cond.Broadcast()
	r.mu.Unlock()
	<-r.done
	return r.err
}

func (r *recorder) run() {
	defer close(r.done)
	for {
		r.mu.Lock()
		for len(r.pending) == 0 && !r.closed {
			r.cond.Wait()
		}
		if len(r.pending) == 0 {
			r.mu.Unlock()
			return
		}
		if !r.closed && r.bytes < flushBytes {
			r.mu.Unlock()
			time.Sleep(flushEvery) // for others
			r.mu.Lock()
		}
		batch := r.pending
		bytes := r.bytes
		r.pending, r.last, r.writing = nil, nil, true
		r.mu.Unlock()
		err := r.write(batch)
		r.mu.Lock()
		r.bytes -= bytes
		r.writing = false
		if err != nil {
			r.err = err
			r.pending, r.bytes = nil, 0
		}
		r.cond.Broadcast()
		failed := r.err != nil
		r.mu.Unlock()
		if failed {
			r.stop(err)
			return
		}
	}
}

func (r *recorder) write(records []*Record) error {
	raws := make([][]byte, len(records))
	for i, record := range records {
		raw, err := record.Encode()
		if err != nil {
			return err
		}
		raws[i] = raw
	}
	return r.drive.Append(raws)
}
