package jobs

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"gotong/grid"
	"gotong/grid/identity"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/storage"
	"gotong/tasks"
)

// SignPlan validates a plan and returns it signed by the node key of its
// submitter, as OpenPlan reads it.
func SignPlan(node ed25519.PrivateKey, p Plan) ([]byte, error) {
	p.number()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	message := planToProto(p)
	var err error
	if message.Known, err = p.encodeKnown(); err != nil {
		return nil, err
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	raw := identity.Sign(node, DomainPlan, body).Encode()
	if len(raw) > MaxPlanBytes {
		return nil, fmt.Errorf("%w: the plan has %d bytes, at most %d", tasks.ErrInvalid, len(raw), MaxPlanBytes)
	}
	return raw, nil
}

// OpenPlan verifies and parses what SignPlan wrote. That the submitter is a
// peer of Plan.Owner is for the caller to check.
func OpenPlan(raw []byte) (Plan, error) {
	if len(raw) > MaxPlanBytes {
		return Plan{}, invalid("plan of %d bytes", len(raw))
	}
	signed, err := identity.ParseSigned(raw)
	if err != nil {
		return Plan{}, err
	}
	if err := signed.Verify(DomainPlan); err != nil {
		return Plan{}, err
	}
	var message tasksv1.Plan
	if err := proto.Unmarshal(signed.Body, &message); err != nil {
		return Plan{}, invalid("plan does not parse")
	}
	p, err := planFromProto(&message)
	if err != nil {
		return Plan{}, err
	}
	if p.Submitter != grid.PeerIDOf(signed.Key) {
		return Plan{}, fmt.Errorf("plan signed by another than its submitter: %w", identity.ErrBadSignature)
	}
	return p, p.Validate()
}

// EncodeDraft returns a plan that is not signed, as DecodeDraft reads it. Its
// ids may be zero; Known is left out.
func EncodeDraft(p Plan) ([]byte, error) {
	raw, err := proto.Marshal(planToProto(p))
	if err == nil && len(raw) > MaxPlanBytes {
		return nil, invalid("the plan has %d bytes, at most %d", len(raw), MaxPlanBytes)
	}
	return raw, err
}

// DecodeDraft parses what EncodeDraft wrote. It checks no more than that it can
// be read.
func DecodeDraft(raw []byte) (Plan, error) {
	var message tasksv1.Plan
	if err := proto.Unmarshal(raw, &message); err != nil {
		return Plan{}, invalid("plan does not parse")
	}
	return planFromProto(&message)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", tasks.ErrInvalid, fmt.Sprintf(format, args...))
}

// fixed copies raw into to and reports whether it has that length.
func fixed(to, raw []byte) bool { return copy(to, raw) == len(to) && len(raw) == len(to) }

func planToProto(p Plan) *tasksv1.Plan {
	out := &tasksv1.Plan{
		Job: p.Job[:], Name: p.Name, Owner: p.Owner[:], Submitter: p.Submitter[:],
		CreatedUnix: p.Created.Unix(), ExpiresUnix: p.Expires.Unix(), RetentionSeconds: int64(p.Retention / time.Second),
		Keepers: string(p.Keepers), Priority: int32(p.Priority), Key: p.Key[:], Grant: p.Grant, NoCache: p.NoCache,
	}
	for _, s := range p.Steps {
		out.Steps = append(out.Steps, stepToProto(s))
	}
	return out
}

func stepToProto(s Step) *tasksv1.Step {
	out := &tasksv1.Step{
		Name: s.Name, Runtime: string(s.Runtime), Args: bytesOf(s.Args), Common: inputsToProto(s.Common),
		Limits: limitsToProto(s.Limits), Verify: s.Verify, Where: s.Where, Outputs: s.Outputs,
		Retries: uint32(s.Retries), MaxPeers: uint32(s.MaxPeers), OnFailure: string(s.OnFailure),
		Items:  &tasksv1.Items{Count: uint64(s.Items.Count), Size: s.Items.Size, Data: s.Items.Data},
		Stored: storedToProto(s.Stored),
	}
	if !s.Module.IsZero() {
		out.Module = s.Module[:]
	}
	if !s.Items.Content.IsZero() {
		out.Items.Content = s.Items.Content[:]
	}
	for _, n := range s.Needs {
		out.Needs = append(out.Needs, &tasksv1.Need{Step: uint32(n.Step), Gather: n.Gather, Stdin: n.Stdin, Files: n.Files})
	}
	return out
}

func planFromProto(m *tasksv1.Plan) (p Plan, err error) {
	if !fixed(p.Job[:], m.Job) || !fixed(p.Owner[:], m.Owner) || !fixed(p.Submitter[:], m.Submitter) || !fixed(p.Key[:], m.Key) {
		return p, invalid("incomplete plan")
	}
	if len(m.Steps) > MaxSteps {
		return p, invalid("%d steps", len(m.Steps))
	}
	if m.RetentionSeconds < 0 || m.RetentionSeconds > int64(MaxRetention/time.Second) {
		return p, invalid("retention of %d s", m.RetentionSeconds)
	}
	p.Name, p.Keepers, p.Priority = m.Name, Keepers(m.Keepers), int(m.Priority)
	p.Created, p.Expires = time.Unix(m.CreatedUnix, 0).UTC(), time.Unix(m.ExpiresUnix, 0).UTC()
	p.Retention = time.Duration(m.RetentionSeconds) * time.Second
	p.Grant, p.NoCache = m.Grant, m.NoCache
	if p.Known, err = parseKnown(m.Known); err != nil {
		return p, err
	}
	for _, s := range m.Steps {
		step, err := stepFromProto(s)
		if err != nil {
			return p, err
		}
		p.Steps = append(p.Steps, step)
	}
	p.number()
	return p, nil
}

func stepFromProto(m *tasksv1.Step) (s Step, err error) {
	s = Step{
		Name: m.Name, Runtime: tasks.Runtime(m.Runtime), Args: stringsOf(m.Args), Verify: m.Verify, Where: m.Where,
		Outputs: m.Outputs, Retries: int(m.Retries), MaxPeers: int(m.MaxPeers), OnFailure: OnFailure(m.OnFailure),
	}
	if len(m.Module) > 0 && !fixed(s.Module[:], m.Module) {
		return s, invalid("bad module")
	}
	if s.Common, err = inputsFromProto(m.Common); err != nil {
		return s, err
	}
	if s.Stored, err = storedFromProto(m.Stored); err != nil {
		return s, err
	}
	items := m.GetItems()
	if items.GetCount() > 1<<31 || (len(items.GetContent()) > 0 && !fixed(s.Items.Content[:], items.GetContent())) {
		return s, invalid("bad list of items")
	}
	s.Items.Count, s.Items.Size, s.Items.Data = int(items.GetCount()), items.GetSize(), items.GetData()
	for _, n := range m.Needs {
		s.Needs = append(s.Needs, Need{Step: int(n.Step), Gather: n.Gather, Stdin: n.Stdin, Files: n.Files})
	}
	l := m.GetLimits()
	if l.GetOutputFiles() > tasks.MaxOutputFiles {
		return s, invalid("%d output files", l.GetOutputFiles())
	}
	s.Limits = tasks.Limits{
		MemoryBytes: l.GetMemoryBytes(), Wall: time.Duration(l.GetWallNanos()), StdoutBytes: l.GetStdoutBytes(),
		StderrBytes: l.GetStderrBytes(), OutputBytes: l.GetOutputBytes(), OutputFiles: int(l.GetOutputFiles()),
	}
	return s, nil
}

func limitsToProto(l tasks.Limits) *tasksv1.Limits {
	return &tasksv1.Limits{
		MemoryBytes: l.MemoryBytes, WallNanos: int64(l.Wall), StdoutBytes: l.StdoutBytes,
		StderrBytes: l.StderrBytes, OutputBytes: l.OutputBytes, OutputFiles: int64(l.OutputFiles),
	}
}

func inputsToProto(list []tasks.Input) (out []*tasksv1.Input) {
	for i := range list {
		in := &list[i]
		out = append(out, &tasksv1.Input{Name: in.Name, Content: in.Content[:], Size: in.Size})
	}
	return out
}

func inputsFromProto(list []*tasksv1.Input) (out []tasks.Input, err error) {
	if len(list) > tasks.MaxInputs {
		return nil, invalid("%d inputs", len(list))
	}
	for _, m := range list {
		in := tasks.Input{Name: m.GetName(), Size: m.GetSize()}
		if !fixed(in.Content[:], m.GetContent()) {
			return nil, invalid("bad content of input %q", in.Name)
		}
		out = append(out, in)
	}
	return out, nil
}

// storedToProto lists stored contents by their ids.
func storedToProto(stored map[tasks.ContentID]tasks.Stored) (out []*tasksv1.StoredContent) {
	for _, id := range sortedContents(stored) {
		out = append(out, oneStoredToProto(id, stored[id]))
	}
	return out
}

func oneStoredToProto(id tasks.ContentID, s tasks.Stored) *tasksv1.StoredContent {
	m := &tasksv1.StoredContent{Content: id[:], Size: s.Size}
	for i := range s.Segments {
		m.Segments = append(m.Segments, s.Segments[i][:])
	}
	for i := range s.Holders {
		m.Holders = append(m.Holders, s.Holders[i][:])
	}
	return m
}

func storedFromProto(list []*tasksv1.StoredContent) (map[tasks.ContentID]tasks.Stored, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make(map[tasks.ContentID]tasks.Stored, len(list))
	for _, m := range list {
		id, s, err := oneStoredFromProto(m)
		if err != nil {
			return nil, err
		}
		out[id] = s
	}
	return out, nil
}

func oneStoredFromProto(m *tasksv1.StoredContent) (id tasks.ContentID, s tasks.Stored, err error) {
	if !fixed(id[:], m.GetContent()) || len(m.Segments) > tasks.MaxStoredSegments || len(m.Holders) > tasks.MaxStoredHolders {
		return id, s, invalid("bad place of a content")
	}
	s.Size = m.Size
	for _, raw := range m.Segments {
		var segment storage.SegmentID
		if !fixed(segment[:], raw) {
			return id, s, invalid("bad segment of content %s", id.Short())
		}
		s.Segments = append(s.Segments, segment)
	}
	for _, raw := range m.Holders {
		var holder grid.PeerID
		if !fixed(holder[:], raw) {
			return id, s, invalid("bad holder of content %s", id.Short())
		}
		s.Holders = append(s.Holders, holder)
	}
	return id, s, s.Validate()
}

func sortedContents(stored map[tasks.ContentID]tasks.Stored) []tasks.ContentID {
	return slices.SortedFunc(maps.Keys(stored), func(a, b tasks.ContentID) int { return bytes.Compare(a[:], b[:]) })
}

func bytesOf(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}

func stringsOf(list [][]byte) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(b)
	}
	return out
}
