// Package where is the language in which a submitter says which peers may run a
// step of a job:
//
//	arch == "amd64" && memory >= 8GiB && site != "home" && !(owner in ["a", "b"])
//
// It has fields of a peer, texts, sizes and lists of texts, the comparisons
// == != < <= > >= and in, and && || ! with parentheses. An expression always
// ends, quickly, whatever it says.
//
// The package imports the standard library only.
package where

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// MaxBytes bounds an expression.
const MaxBytes = 4 << 10

// maxDepth bounds parentheses and negations inside each other.
const maxDepth = 64

// Facts are what an expression may ask of a peer. All but Peer, Owner and Site
// are what the peer says of itself.
type Facts struct {
	Peer    string
	Owner   string
	Site    string
	Name    string
	Arch    string // as GOARCH
	OS      string // as GOOS
	Version string
	Memory  uint64 // bytes; 0: unknown
	Slots   uint64
}

// Fields lists the names that an expression knows, sorted.
func Fields() []string {
	return []string{"arch", "memory", "name", "os", "owner", "peer", "site", "slots", "version"}
}

func (f Facts) text(field string) (string, bool) {
	switch field {
	case "peer":
		return f.Peer, true
	case "owner":
		return f.Owner, true
	case "site":
		return f.Site, true
	case "name":
		return f.Name, true
	case "arch":
		return f.Arch, true
	case "os":
		return f.OS, true
	case "version":
		return f.Version, true
	}
	return "", false
}

func (f Facts) number(field string) (uint64, bool) {
	switch field {
	case "memory":
		return f.Memory, true
	case "slots":
		return f.Slots, true
	}
	return 0, false
}

// Expr is a checked expression. The zero Expr holds of every peer.
type Expr struct {
	root node
}

// Holds reports whether the expression holds of a peer. When it does not, why
// says which part decided that, with the peer's values.
func (e Expr) Holds(f Facts) (ok bool, why string) {
	if e.root == nil {
		return true, ""
	}
	ok = e.root.holds(f)
	if !ok {
		why = e.root.because(f, false)
	}
	return ok, why
}

// Error is a fault of an expression.
type Error struct {
	Column int // from 1, in bytes
	What   string
}

// Error says what is wrong, and where.
func (e *Error) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.What) }

// node is a part of an expression.
type node interface {
	holds(Facts) bool
	// because says why the node holds, or why not.
	because(f Facts, holds bool) string
}

type not struct{ of node }

func (n not) holds(f Facts) bool                 { return !n.of.holds(f) }
func (n not) because(f Facts, holds bool) string { return n.of.because(f, !holds) }

type and struct{ a, b node }

func (n and) holds(f Facts) bool { return n.a.holds(f) && n.b.holds(f) }
func (n and) because(f Facts, holds bool) string {
	if holds {
		return n.a.because(f, true) + ", " + n.b.because(f, true)
	}
	if !n.a.holds(f) {
		return n.a.because(f, false)
	}
	return n.b.because(f, false)
}

type or struct{ a, b node }

func (n or) holds(f Facts) bool { return n.a.holds(f) || n.b.holds(f) }
func (n or) because(f Facts, holds bool) string {
	if !holds {
		return n.a.because(f, false) + ", " + n.b.because(f, false)
	}
	if n.a.holds(f) {
		return n.a.because(f, true)
	}
	return n.b.because(f, true)
}

// texts compares a field with texts: one of them, or none.
type texts struct {
	field string
	list  []string
	not   bool
}

func (n texts) holds(f Facts) bool {
	have, _ := f.text(n.field)
	return slices.Contains(n.list, have) != n.not
}

func (n texts) because(f Facts, _ bool) string {
	have, _ := f.text(n.field)
	return fmt.Sprintf("its %s is %q", n.field, have)
}

// numbers compares a field with a number.
type numbers struct {
	field string
	op    string
	value uint64
}

func (n numbers) holds(f Facts) bool {
	have, _ := f.number(n.field)
	switch n.op {
	case "==":
		return have == n.value
	case "!=":
		return have != n.value
	case "<":
		return have < n.value
	case "<=":
		return have <= n.value
	case ">":
		return have > n.value
	}
	return have >= n.value
}

func (n numbers) because(f Facts, _ bool) string {
	have, _ := f.number(n.field)
	if n.field == "memory" && have == 0 {
		return "it does not say how much memory it has"
	}
	return fmt.Sprintf("its %s is %d", n.field, have)
}

// Parse checks an expression. The empty one holds of every peer. Errors are
// *Error.
func Parse(s string) (Expr, error) {
	if len(s) > MaxBytes {
		return Expr{}, &Error{1, fmt.Sprintf("%d bytes, at most %d", len(s), MaxBytes)}
	}
	p := &parser{text: s}
	if p.next(); p.token == "" && p.err == nil {
		return Expr{}, nil
	}
	root := p.or(0)
	if p.err == nil && p.token != "" {
		p.fail("%q is not expected here; join conditions with && or ||", p.token)
	}
	if p.err != nil {
		return Expr{}, p.err
	}
	return Expr{root}, nil
}

// kind is what a token is.
type kind int

const (
	kindSign kind = iota
	kindWord
	kindText
	kindNumber
)

type parser struct {
	text  string
	at    int // after the token
	begin int // of the token
	token string
	kind  kind
	err   error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = &Error{p.begin + 1, fmt.Sprintf(format, args...)}
	}
	p.token, p.kind = "", kindSign
	p.at = len(p.text)
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

// next reads the next token; the empty one is the end.
func (p *parser) next() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	p.begin, p.kind = p.at, kindSign
	rest := p.text[p.at:]
	if rest == "" || p.err != nil {
		p.token = ""
		return
	}
	span := func(f func(byte) bool) int {
		n := 0
		for n < len(rest) && f(rest[n]) {
			n++
		}
		return n
	}
	n := 1
	switch c := rest[0]; {
	case letter(c):
		n, p.kind = span(func(c byte) bool { return letter(c) || digit(c) }), kindWord
	case digit(c):
		n, p.kind = span(func(c byte) bool { return letter(c) || digit(c) || c == '.' }), kindNumber
	case c == '"' || c == '\'':
		end := strings.IndexByte(rest[1:], c)
		if end < 0 {
			p.fail("the text that begins here has no end")
			return
		}
		p.token, p.kind, p.at = rest[1:1+end], kindText, p.at+end+2
		return
	case len(rest) > 1 && slices.Contains([]string{"==", "!=", "<=", ">=", "&&", "||"}, rest[:2]):
		n = 2
	case strings.IndexByte("<>!()[],", c) < 0:
		p.fail("%q is not expected here", rest[:1])
		return
	}
	p.token = rest[:n]
	p.at += n
}

// is reports whether the token is this sign or word, not a text of that name.
func (p *parser) is(s string) bool { return p.token == s && p.kind != kindText && p.kind != kindNumber }

func (p *parser) take(s string) bool {
	if !p.is(s) {
		return false
	}
	p.next()
	return true
}

func (p *parser) or(depth int) node {
	n := p.and(depth)
	for p.err == nil && (p.take("||") || p.take("or")) {
		n = or{n, p.and(depth)}
	}
	return n
}

func (p *parser) and(depth int) node {
	n := p.one(depth)
	for p.err == nil && (p.take("&&") || p.take("and")) {
		n = and{n, p.one(depth)}
	}
	return n
}

func (p *parser) one(depth int) node {
	if depth > maxDepth {
		p.fail("more than %d parentheses inside each other", maxDepth)
		return not{}
	}
	switch {
	case p.take("!") || p.take("not"):
		return not{p.one(depth + 1)}
	case p.take("("):
		n := p.or(depth + 1)
		if !p.take(")") {
			p.fail("a closing parenthesis is missing")
		}
		return n
	}
	return p.comparison()
}

func (p *parser) comparison() node {
	field := p.token
	if p.kind != kindWord {
		p.fail("a condition begins with one of %s", strings.Join(Fields(), ", "))
		return not{}
	}
	_, isText := Facts{}.text(field)
	_, isNumber := Facts{}.number(field)
	if !isText && !isNumber {
		p.fail("%q is not known; there are %s", field, strings.Join(Fields(), ", "))
		return not{}
	}
	p.next()
	if isText && p.take("in") {
		return texts{field: field, list: p.list()}
	}
	op := p.token
	if p.kind != kindSign || !slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, op) {
		p.fail("after %s a comparison is expected, as == or !=", field)
		return not{}
	}
	if isText && op != "==" && op != "!=" {
		p.fail("%s is a text; it can be compared with ==, != and in", field)
		return not{}
	}
	p.next()
	if isText {
		return texts{field, []string{p.value()}, op == "!="}
	}
	return numbers{field, op, p.size()}
}

// value reads a text.
func (p *parser) value() string {
	if p.kind != kindText {
		p.fail("a text in quotes is expected here")
		return ""
	}
	s := p.token
	p.next()
	return s
}

func (p *parser) list() (out []string) {
	if !p.take("[") {
		p.fail("a list as [\"a\", \"b\"] is expected after in")
		return nil
	}
	for p.err == nil {
		if p.take("]") {
			return out
		}
		if len(out) > 0 && !p.take(",") {
			p.fail("a comma or ] is expected here")
			return nil
		}
		out = append(out, p.value())
	}
	return nil
}

// units of sizes.
var units = map[string]float64{
	"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
	"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40,
}

// size reads a number, with a unit or without.
func (p *parser) size() uint64 {
	digits := strings.TrimRight(p.token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
	number, err := strconv.ParseFloat(digits, 64)
	unit, known := units[strings.ToUpper(strings.TrimPrefix(p.token, digits))]
	if p.kind != kindNumber || err != nil || !known || number*unit > math.MaxInt64 {
		p.fail("a number or a size as 8GB or 8GiB is expected here")
		return 0
	}
	p.next()
	return uint64(number * unit)
}
