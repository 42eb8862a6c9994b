package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "gotong/"

// layers lists the packages from the top to the bottom; a package may import
// only what stands below it. Packages that share a line do not import each
// other. gotong/proto and what is below it may be imported by any.
var layers = [][]string{
	{"cmd/gotong"},
	{"cmd/internal/cli"},
	{"cmd/internal/config"},
	{"cmd/internal/archtest"},
	{"benchmarks"},
	{"grid/gridtest"},
	{"grid/localgrid"},
	{"grid/node"},
	{"tasks/jobfile"},
	{"tasks/keeper"},
	{"tasks/jobs"},
	{"tasks/remember"},
	{"tasks/taskrpc"},
	{"tasks/scheduler"},
	{"tasks/worker"},
	{"tasks/native"},
	{"tasks/probes"},
	{"tasks/sandbox"},
	{"tasks/rules"},
	{"tasks/contents"},
	{"tasks/guests"},
	{"tasks/batch"},
	{"tasks/where"},
	{"tasks"},
	{"storage/mount"},
	{"storage/snapshot"},
	{"storage/vault"},
	{"storage/repair"},
	{"storage/segments"},
	{"storage/shardrpc"},
	{"storage/shardstore"},
	{"storage/storagetest"},
	{"storage/placement"},
	{"storage/erasure"},
	{"storage/seal"},
	{"storage"},
	{"grid/membership"},
	{"grid/invite"},
	{"grid/peernet"},
	{"grid/roster"},
	{"grid/identity"},
	{"grid"},
	{"grid/gridtest/memnet"},
	{"grid/disk"},
	{"grid/disk/disktest"},
	{"grid/blake3"},
	{"configs"},
}

// testOnly may be imported by test files, and by nothing that ships, wherever
// they stand in the list.
var testOnly = []string{"grid/gridtest", "grid/gridtest/memnet", "grid/disk/disktest", "storage/storagetest"}

// soleImporters names the one package that may import a heavy library, so that
// replacing it touches one place.
var soleImporters = map[string]string{
	"github.com/spf13/viper":                "cmd/internal/config",
	"github.com/spf13/cobra":                "cmd/internal/cli",
	"github.com/mdp/qrterminal/v3":          "cmd/internal/cli",
	"github.com/hashicorp/serf/serf":        "grid/membership",
	"github.com/hashicorp/memberlist":       "grid/membership",
	"github.com/hashicorp/mdns":             "grid/membership",
	"github.com/klauspost/reedsolomon":      "storage/erasure",
	"lukechampine.com/blake3/guts":          "grid/blake3",
	"lukechampine.com/blake3/bao":           "storage/erasure",
	"github.com/tetratelabs/wazero":         "tasks/sandbox",
	"github.com/landlock-lsm/go-landlock":   "tasks/sandbox",
	"github.com/PlakarKorp/go-cdc-chunkers": "storage/vault",
	"github.com/godbus/dbus/v5":             "tasks/rules",
	"go.yaml.in/yaml/v3":                    "tasks/jobfile",
	"go.etcd.io/bbolt":                      "storage/vault",
	"github.com/hanwen/go-fuse/v2/fuse":     "storage/mount",
	"github.com/hanwen/go-fuse/v2/fs":       "storage/mount",
}

// vocabulary packages import the standard library and each other only.
var vocabulary = []string{"grid", "storage", "tasks", "grid/identity", "grid/blake3", "grid/disk"}

type goPackage struct {
	Dir, ImportPath, Name              string
	GoFiles, IgnoredGoFiles            []string
	Imports, TestImports, XTestImports []string
	Module                             *struct{ Main bool }
}

func (p goPackage) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=Dir,ImportPath,Name,GoFiles,IgnoredGoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = filepath.Join("..", "..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < len(layers)/2 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

func layerOf(name string) int {
	return slices.IndexFunc(layers, func(layer []string) bool { return slices.Contains(layer, name) })
}

func TestImportsPointDown(t *testing.T) {
	seen, edges := map[string]bool{}, 0
	for _, p := range packages(t) {
		name := p.name()
		if strings.HasPrefix(name, "proto") {
			continue
		}
		seen[name] = true
		from := layerOf(name)
		if from < 0 {
			t.Errorf("%s stands in no layer: add it to the list in this test and to docs/architecture.md", name)
			continue
		}
		for _, imported := range p.Imports {
			target, own := strings.CutPrefix(imported, module)
			if !own || strings.HasPrefix(target, "proto") {
				continue
			}
			edges++
			if layerOf(target) <= from {
				t.Errorf("%s imports %s, which does not stand below it", name, target)
			}
			if slices.Contains(testOnly, target) && !slices.Contains([]string{"benchmarks"}, name) && !slices.Contains(testOnly, name) {
				t.Errorf("%s imports %s, which is for tests", name, target)
			}
		}
	}
	if edges == 0 {
		t.Error("no import inside the module was seen")
	}
	for _, layer := range layers {
		for _, name := range layer {
			if !seen[name] {
				t.Errorf("the list names %s, which does not exist", name)
			}
		}
	}
}

func TestHeavyLibrariesHaveOneImporter(t *testing.T) {
	used := map[string]bool{}
	for _, p := range packages(t) {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for library, sole := range soleImporters {
				if imported != library && !strings.HasPrefix(imported, library+"/") {
					continue
				}
				used[library] = true
				if p.name() != sole {
					t.Errorf("%s imports %s; only %s may", p.name(), library, sole)
				}
			}
		}
	}
	for library := range soleImporters {
		if !used[library] {
			t.Errorf("nothing imports %s: drop it from the list", library)
		}
	}
}

func TestVocabularyImportsNoThirdParty(t *testing.T) {
	checked := 0
	for _, p := range packages(t) {
		if !slices.Contains(vocabulary, p.name()) {
			continue
		}
		checked++
		for _, imported := range p.Imports {
			first, _, _ := strings.Cut(imported, "/")
			own := strings.TrimPrefix(imported, module)
			if strings.Contains(first, ".") && !slices.Contains(vocabularyExceptions[p.name()], imported) ||
				own != imported && !slices.Contains(vocabulary, own) {
				t.Errorf("%s is vocabulary and imports %s", p.name(), imported)
			}
		}
	}
	if checked != len(vocabulary) {
		t.Errorf("%d of %d vocabulary packages were found", checked, len(vocabulary))
	}
}

// vocabularyExceptions: the standard library has neither BLAKE3, which the id
// of a segment is, nor file locks and the free space of a disk.
var vocabularyExceptions = map[string][]string{
	"grid/blake3": {"lukechampine.com/blake3", "lukechampine.com/blake3/guts"},
	"grid/disk":   {"golang.org/x/sys/unix", "golang.org/x/sys/windows"},
}

func TestEveryPackageHasAComment(t *testing.T) {
	checked := 0
	for _, p := range packages(t) {
		files := slices.Concat(p.GoFiles, p.IgnoredGoFiles)
		if len(p.GoFiles) == 0 { // tests only
			continue
		}
		checked++
		commented := slices.ContainsFunc(files, func(f string) bool {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ParseComments|parser.PackageClauseOnly)
			return err == nil && file.Doc != nil
		})
		if !commented {
			t.Errorf("%s has no package comment", p.name())
		}
	}
	if checked < len(layers)/2 {
		t.Errorf("only %d packages were looked at", checked)
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	checked := 0
	for _, p := range packages(t) {
		for _, f := range p.GoFiles {
			if strings.HasSuffix(f, ".pb.go") {
				continue
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, f), nil, parser.ParseComments)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, declaration := range file.Decls {
				for _, name := range undocumented(declaration) {
					t.Errorf("%s: exported %s has no comment", fset.Position(declaration.Pos()), name)
				}
				checked++
			}
		}
	}
	if checked == 0 {
		t.Error("no declaration was seen")
	}
}

// undocumented returns the exported names of a declaration that nothing
// explains. Inside a group, a comment on the group or beside the line counts.
func undocumented(declaration ast.Decl) []string {
	switch d := declaration.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		var names []string
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					names = append(names, s.Names[0].Name)
				}
			}
		}
		return names
	}
	return nil
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	receiver := d.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if index, ok := receiver.(*ast.IndexExpr); ok {
		receiver = index.X
	}
	name, ok := receiver.(*ast.Ident)
	return ok && name.IsExported()
}

// TestEveryMethodIsInTheTable: a gRPC method that peers can reach has its line
// in grid/node's table of who may call it. The control API is not served to
// peers.
func TestEveryMethodIsInTheTable(t *testing.T) {
	top := filepath.Join("..", "..", "..")
	table, err := os.ReadFile(filepath.Join(top, "grid", "node", "rules.go"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(top, "proto", "*", "*", "*_grpc.pb.go"))
	if err != nil {
		t.Fatal(err)
	}
	names, control := regexp.MustCompile(`(?m)^\s*(\w+_FullMethodName)\s*=`), 0
	methods := 0
	for _, file := range files {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(file, filepath.Join("proto", "control")) {
			control++
			continue
		}
		for _, match := range names.FindAllSubmatch(code, -1) {
			methods++
			if !bytes.Contains(table, append([]byte("."), append(match[1], ':')...)) {
				t.Errorf("%s has no rule in grid/node/rules.go", match[1])
			}
		}
	}
	if methods == 0 || control != 1 {
		t.Errorf("%d methods and %d control services were seen", methods, control)
	}
}
