package jobs

import (
	"crypto/ed25519"
	"encoding/binary"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

const hashBytes = 32

var statesToProto = map[tasks.State]tasksv1.State{
	tasks.StateDone:      tasksv1.State_STATE_DONE,
	tasks.StateFailed:    tasksv1.State_STATE_FAILED,
	tasks.StateLimit:     tasksv1.State_STATE_LIMIT,
	tasks.StateCancelled: tasksv1.State_STATE_CANCELLED,
	tasks.StateLost:      tasksv1.State_STATE_LOST,
}

var statesFromProto = func() map[tasksv1.State]tasks.State {
	out := map[tasksv1.State]tasks.State{}
	for k, v := range statesToProto {
		out[v] = k
	}
	return out
}()

// encoder builds the tables of a record.
type encoder struct {
	out     *tasksv1.Record
	peers   map[grid.PeerID]uint32
	batches map[string]uint32 // by signature
	whole   map[uint32]map[int]bool
}

// Encode returns the record as ParseRecord reads it.
func (r Record) Encode() ([]byte, error) {
	e := encoder{
		out: &tasksv1.Record{
			Epoch: r.Epoch, Driver: r.Driver[:], AtUnixNanos: r.At.UnixNano(), Generation: r.Generation, Begun: r.Begun,
		},
		peers: map[grid.PeerID]uint32{}, batches: map[string]uint32{}, whole: map[uint32]map[int]bool{},
	}
	for _, res := range r.Results {
		e.out.Results = append(e.out.Results, e.result(res))
	}
	for _, res := range r.Evidence {
		e.out.Evidence = append(e.out.Evidence, e.result(res))
	}
	for _, t := range r.Trust {
		e.out.Trust = append(e.out.Trust, &tasksv1.Trust{Peer: e.peer(t.Peer), Value: int64(t.Value)})
	}
	e.out.Tried, e.out.Lost = triedToProto(r.Tried), triedToProto(r.Lost)
	if len(r.Retried) > 0 {
		e.out.Retried = &tasksv1.Retried{}
		for _, g := range r.Retried {
			e.out.Retried.Ranges = append(e.out.Retried.Ranges, &tasksv1.Range{From: uint64(g.From), Count: uint64(g.Count)})
		}
	}
	if r.Cancelled != nil {
		e.out.Cancelled = &tasksv1.Cancelled{Why: clip(r.Cancelled.Why)}
	}
	if r.Ended != nil {
		e.out.Ended = &tasksv1.Ended{Done: r.Ended.Done, Why: clip(r.Ended.Why)}
	}
	e.shorten()
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(e.out)
	if err == nil && len(raw) > MaxRecordBytes {
		return nil, invalid("a record of %d bytes, at most %d", len(raw), MaxRecordBytes)
	}
	return raw, err
}

func (e *encoder) peer(id grid.PeerID) uint32 {
	if id.IsZero() {
		return 0
	}
	n, ok := e.peers[id]
	if !ok {
		e.out.Peers = append(e.out.Peers, id[:])
		n = uint32(len(e.out.Peers))
		e.peers[id] = n
	}
	return n
}

func (e *encoder) batch(b *Batch) uint32 {
	if b == nil {
		return 0
	}
	n, ok := e.batches[string(b.Signature)]
	if !ok {
		e.out.Batches = append(e.out.Batches, &tasksv1.Batch{Key: b.Key, Signature: b.Signature, Hashes: b.Hashes})
		n = uint32(len(e.out.Batches))
		e.batches[string(b.Signature)] = n
		e.whole[n] = map[int]bool{}
	}
	return n
}

func (e *encoder) result(r Result) *tasksv1.TaskResult {
	m := &tasksv1.TaskResult{
		Index: uint64(r.Index), Raw: r.Raw, State: statesToProto[r.State], Peer: e.peer(r.Peer), Batch: e.batch(r.Batch),
		Position: uint32(r.Position), Attempts: uint32(r.Attempts), Checked: r.Checked, Site: r.Site,
		Revision: r.Revision, Remembered: r.Remembered,
	}
	if m.Batch > 0 {
		e.whole[m.Batch][r.Position] = true
	}
	for _, v := range r.Votes {
		m.Votes = append(m.Votes, e.result(v))
	}
	return m
}

// shorten leaves the hashes of a batch out when all of its results are in the
// record: they follow from them.
func (e *encoder) shorten() {
	for n, have := range e.whole {
		if b := e.out.Batches[n-1]; len(have) == len(b.Hashes)/hashBytes {
			b.Hashes = nil
		}
	}
}

// decoder resolves the tables of a record.
type decoder struct {
	in      *tasksv1.Record
	peers   []grid.PeerID
	batches []*Batch
	hashes  []map[int][hashBytes]byte // of batches without their hashes
	results int
}

// ParseRecord parses and checks what Record.Encode wrote. Signatures of results
// are not verified; see Result.Verify.
func ParseRecord(raw []byte) (*Record, error) {
	if len(raw) > MaxRecordBytes {
		return nil, invalid("a record of %d bytes", len(raw))
	}
	d := decoder{in: &tasksv1.Record{}}
	if err := proto.Unmarshal(raw, d.in); err != nil {
		return nil, invalid("record does not parse")
	}
	r := &Record{Epoch: d.in.Epoch, At: time.Unix(0, d.in.AtUnixNanos).UTC(), Generation: d.in.Generation, Begun: d.in.Begun}
	if !fixed(r.Driver[:], d.in.Driver) {
		return nil, invalid("record without a driver")
	}
	if err := d.tables(); err != nil {
		return nil, err
	}
	var err error
	if r.Results, err = d.list(d.in.Results); err != nil {
		return nil, err
	}
	if r.Evidence, err = d.list(d.in.Evidence); err != nil {
		return nil, err
	}
	if err := d.complete(); err != nil {
		return nil, err
	}
	return r, d.rest(r)
}

func (d *decoder) tables() error {
	if len(d.in.Peers) > maxRecordPeers || len(d.in.Batches) > MaxRecordResults {
		return invalid("tables of a record too long")
	}
	for _, raw := range d.in.Peers {
		var id grid.PeerID
		if !fixed(id[:], raw) || id.IsZero() {
			return invalid("bad peer in a record")
		}
		d.peers = append(d.peers, id)
	}
	for _, b := range d.in.Batches {
		if len(b.GetKey()) != ed25519.PublicKeySize || len(b.GetSignature()) != ed25519.SignatureSize ||
			len(b.GetHashes())%hashBytes != 0 || len(b.GetHashes()) > scheduler.MaxSignedResults*hashBytes {
			return invalid("bad signature in a record")
		}
		d.batches = append(d.batches, &Batch{Key: b.Key, Signature: b.Signature, Hashes: b.Hashes})
		d.hashes = append(d.hashes, map[int][hashBytes]byte{})
	}
	return nil
}

func (d *decoder) list(list []*tasksv1.TaskResult) (out []Result, err error) {
	for _, m := range list {
		r, err := d.result(m, true)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (d *decoder) result(m *tasksv1.TaskResult, votes bool) (r Result, err error) {
	if d.results++; d.results > MaxRecordResults {
		return r, invalid("more than %d results in a record", MaxRecordResults)
	}
	state, known := statesFromProto[m.GetState()]
	if !known || m.Index >= scheduler.MaxTasks || m.Position >= scheduler.MaxSignedResults || m.Attempts > 1<<20 || m.Revision > maxRevision ||
		int(m.Peer) > len(d.peers) || int(m.Batch) > len(d.batches) || len(m.Votes) > maxVotes || len(m.Site) > maxSiteBytes {
		return r, invalid("bad result in a record")
	}
	r = Result{
		Index: int(m.Index), State: state, Raw: m.Raw, Position: int(m.Position), Attempts: int(m.Attempts),
		Checked: m.Checked, Site: m.Site, Revision: m.Revision, Remembered: m.Remembered,
	}
	if m.Peer > 0 {
		r.Peer = d.peers[m.Peer-1]
	}
	if len(m.Raw) == 0 || len(m.Raw) > tasks.MaxResultBytes {
		return r, invalid("result without its bytes in a record")
	}
	if m.Batch > 0 {
		r.Batch = d.batches[m.Batch-1]
		d.hashes[m.Batch-1][r.Position] = r.id()
	}
	for _, v := range m.Votes {
		if !votes {
			return r, invalid("votes on a vote")
		}
		vote, err := d.result(v, false)
		if err != nil {
			return r, err
		}
		r.Votes = append(r.Votes, vote)
	}
	return r, nil
}

// complete computes the hashes of the batches that came without them.
func (d *decoder) complete() error {
	for i, b := range d.batches {
		if len(b.Hashes) > 0 {
			continue
		}
		for position := range len(d.hashes[i]) {
			hash, ok := d.hashes[i][position]
			if !ok {
				return invalid("hashes of a signature are missing in a record")
			}
			b.Hashes = append(b.Hashes, hash[:]...)
		}
	}
	return nil
}

func triedToProto(list []Tried) (out []*tasksv1.Tried) {
	for _, t := range list {
		out = append(out, &tasksv1.Tried{Index: uint64(t.Index), Runs: uint32(t.Runs)})
	}
	return out
}

func triedFromProto(list []*tasksv1.Tried) (out []Tried, err error) {
	if len(list) > maxTried {
		return nil, invalid("too many failures in a record")
	}
	for _, t := range list {
		if t.GetIndex() >= scheduler.MaxTasks || t.GetRuns() == 0 || t.GetRuns() > maxRuns {
			return nil, invalid("bad failure in a record")
		}
		out = append(out, Tried{int(t.Index), int(t.Runs)})
	}
	return out, nil
}

// rest takes in what is not about results.
func (d *decoder) rest(r *Record) (err error) {
	for _, t := range d.in.Trust {
		if t.GetPeer() == 0 || int(t.Peer) > len(d.peers) || t.Value < TrustCaught || t.Value > 1<<30 {
			return invalid("bad trust in a record")
		}
		r.Trust = append(r.Trust, Trust{d.peers[t.Peer-1], int(t.Value)})
	}
	if r.Tried, err = triedFromProto(d.in.Tried); err != nil {
		return err
	}
	if r.Lost, err = triedFromProto(d.in.Lost); err != nil {
		return err
	}
	if len(d.in.GetRetried().GetRanges()) > maxRanges {
		return invalid("too many ranges in a record")
	}
	for _, g := range d.in.GetRetried().GetRanges() {
		if g.GetFrom() >= scheduler.MaxTasks || g.GetCount() > scheduler.MaxTasks || g.GetCount() == 0 {
			return invalid("bad range in a record")
		}
		r.Retried = append(r.Retried, Range{int(g.From), int(g.Count)})
	}
	if c := d.in.Cancelled; c != nil {
		r.Cancelled = &Cancelled{clip(c.Why)}
	}
	if e := d.in.Ended; e != nil {
		r.Ended = &Ended{e.Done, clip(e.Why)}
	}
	return nil
}

// clip makes a text of others short and valid.
func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), MaxWhyBytes)], "\uFFFD")
}

// size estimates the bytes of an encoded result, from above; its signature
// apart.
func (r Result) size() int {
	n := 128 + len(r.Raw) + len(r.Site)
	for _, v := range r.Votes {
		n += v.size() + v.Batch.size()
	}
	return n
}

// size estimates the bytes of an encoded signature, from above.
func (b *Batch) size() int {
	if b == nil {
		return 0
	}
	return len(b.Hashes) + 128
}

// hashOf names a result among others of its task.
func (r Result) hashOf() uint64 {
	id := r.id()
	return binary.BigEndian.Uint64(id[:])
}
