// Command gen compiles every .proto file under proto/ and writes the generated
// Go files beside them. It is pure Go and pinned by go.mod: the compiler is a
// library, the two plugins are go.mod tools, so the same tree always gives the
// same files.
//
//	go run ./proto/gen          rewrite the generated files
//	go run ./proto/gen -check   exit 1 and name the files that would change
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	root   = "proto"
	module = "gotong/"
)

func main() {
	check := flag.Bool("check", false, "compare with the committed files instead of writing")
	flag.Parse()
	if err := run(context.Background(), *check); err != nil {
		fmt.Fprintln(os.Stderr, "proto/gen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, check bool) error {
	names, err := protoFiles()
	if err != nil {
		return err
	}
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			ImportPaths: []string{root},
		}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(ctx, names...)
	if err != nil {
		return err
	}
	request, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: names,
		Parameter:      proto.String("module=" + strings.TrimSuffix(module, "/")),
		ProtoFile:      descriptors(files),
	})
	if err != nil {
		return err
	}
	var stale []string
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		changed, err := generate(ctx, plugin, request, check)
		if err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
		stale = append(stale, changed...)
	}
	if check && len(stale) > 0 {
		return fmt.Errorf("out of date: %s; run: go run ./proto/gen", strings.Join(stale, " "))
	}
	return nil
}

// protoFiles lists the .proto files relative to root, sorted.
func protoFiles() ([]string, error) {
	var names []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".proto" {
			name, _ := filepath.Rel(root, path)
			names = append(names, filepath.ToSlash(name))
		}
		return err
	})
	if err == nil && len(names) == 0 {
		err = errors.New("no .proto file found; run from the top of the repository")
	}
	slices.Sort(names)
	return names, err
}

// descriptors returns the files with all that they import, imports first, as
// the plugin protocol wants them.
func descriptors(files linker.Files) []*descriptorpb.FileDescriptorProto {
	var out []*descriptorpb.FileDescriptorProto
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		out = append(out, protodesc.ToFileDescriptorProto(f))
	}
	for _, f := range files {
		add(f)
	}
	return out
}

// generate runs one plugin and writes, or compares, what it answers. It
// returns the files whose content differs from the disk.
func generate(ctx context.Context, plugin string, request []byte, check bool) ([]string, error) {
	cmd := exec.CommandContext(ctx, "go", "tool", plugin)
	cmd.Stdin = bytes.NewReader(request)
	cmd.Stderr = os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(answer, &response); err != nil {
		return nil, err
	}
	if response.Error != nil {
		return nil, errors.New(response.GetError())
	}
	var changed []string
	for _, f := range response.File {
		old, err := os.ReadFile(f.GetName())
		if err == nil && string(old) == f.GetContent() {
			continue
		}
		changed = append(changed, f.GetName())
		if check {
			continue
		}
		if err := os.WriteFile(f.GetName(), []byte(f.GetContent()), 0o644); err != nil {
			return nil, err
		}
	}
	return changed, nil
}
