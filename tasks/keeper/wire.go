package keeper

import (
	"fmt"
	"time"

	"gotong/grid"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
)

// PutRequest makes a peer a keeper.
type PutRequest struct {
	Plan       []byte
	List       List
	Statements [][]byte
}

// AppendRequest is what a driver tells another keeper.
type AppendRequest struct {
	Job        tasks.JobID
	Epoch      uint64
	Proof      []byte
	Batches    []Batch
	List       List
	Said       []byte
	Statements [][]byte
}

// AppendResponse is the keeper's answer.
type AppendResponse struct {
	Have       Vector
	Lead       Stream // whom it follows; another than the caller: the caller is deposed
	Said       []byte
	Statements [][]byte
}

// StateRequest asks a keeper what it has of a job. Another keeper, which Proof
// shows it to be, says what it has itself.
type StateRequest struct {
	Job        tasks.JobID
	Proof      []byte
	Have       Vector
	List       List
	Statements [][]byte
}

// State is what a keeper has of a job.
type State struct {
	Have       Vector
	Lead       Stream
	Heard      time.Duration // since Lead was heard; 0 while Driving
	Driving    bool
	List       List
	Statements [][]byte
	Over       bool
	Generation uint32
}

// ReadRequest asks for records beyond Have.
type ReadRequest struct {
	Job   tasks.JobID
	Proof []byte
	Have  Vector
}

// Listed is one line of what a keeper keeps for an owner.
type Listed struct {
	Job     tasks.JobID
	Summary []byte // by Book.Summary; what the keeper says, not verified
	Have    Vector
	List    List
	Lead    Stream
}

func peerToBytes(p grid.PeerID) []byte {
	if p.IsZero() {
		return nil
	}
	return p[:]
}

func peerFromBytes(raw []byte) (grid.PeerID, error) {
	switch len(raw) {
	case 0:
		return grid.PeerID{}, nil
	case len(grid.PeerID{}):
		return grid.PeerID(raw), nil
	}
	return grid.PeerID{}, fmt.Errorf("%w: peer id of %d bytes", ErrInvalid, len(raw))
}

func streamFromProto(epoch uint64, driver []byte) (Stream, error) {
	peer, err := peerFromBytes(driver)
	return Stream{epoch, peer}, err
}

func jobFromBytes(raw []byte) (tasks.JobID, error) {
	if len(raw) != len(tasks.JobID{}) {
		return tasks.JobID{}, fmt.Errorf("%w: job id of %d bytes", ErrInvalid, len(raw))
	}
	return tasks.JobID(raw), nil
}

func listToProto(l List) *tasksv1.KeeperList {
	m := &tasksv1.KeeperList{Epoch: l.By.Epoch, Driver: peerToBytes(l.By.Driver), Number: l.Number}
	for _, p := range l.Peers {
		m.Peers = append(m.Peers, p[:])
	}
	return m
}

func listFromProto(m *tasksv1.KeeperList) (l List, err error) {
	if m == nil {
		return l, nil
	}
	if len(m.Peers) > maxKeepers {
		return l, fmt.Errorf("%w: %d keepers", ErrInvalid, len(m.Peers))
	}
	if l.By, err = streamFromProto(m.Epoch, m.Driver); err != nil {
		return l, err
	}
	l.Number = m.Number
	for _, raw := range m.Peers {
		p, err := peerFromBytes(raw)
		if err != nil {
			return l, err
		}
		l.Peers = append(l.Peers, p)
	}
	return l, nil
}

func vectorToProto(v Vector) []*tasksv1.StreamCount {
	out := make([]*tasksv1.StreamCount, 0, len(v))
	for _, s := range v.streams() {
		out = append(out, &tasksv1.StreamCount{Epoch: s.Epoch, Driver: peerToBytes(s.Driver), Records: v[s]})
	}
	return out
}

func vectorFromProto(in []*tasksv1.StreamCount) (Vector, error) {
	if len(in) > maxStreams {
		return nil, fmt.Errorf("%w: %d epochs", ErrInvalid, len(in))
	}
	v := make(Vector, len(in))
	for _, c := range in {
		s, err := streamFromProto(c.GetEpoch(), c.GetDriver())
		if err != nil {
			return nil, err
		}
		v[s] = c.GetRecords()
	}
	return v, nil
}

func batchesToProto(in []Batch) []*tasksv1.RecordBatch {
	out := make([]*tasksv1.RecordBatch, len(in))
	for i, b := range in {
		out[i] = &tasksv1.RecordBatch{Epoch: b.Stream.Epoch, Driver: peerToBytes(b.Stream.Driver), First: b.First, Records: b.Records}
	}
	return out
}

func batchesFromProto(in []*tasksv1.RecordBatch) ([]Batch, error) {
	out := make([]Batch, len(in))
	for i, m := range in {
		s, err := streamFromProto(m.GetEpoch(), m.GetDriver())
		if err != nil {
			return nil, err
		}
		out[i] = Batch{Stream: s, First: m.GetFirst(), Records: m.GetRecords()}
	}
	return out, nil
}
