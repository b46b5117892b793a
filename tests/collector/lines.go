package main

import (
	"context"
	"os"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// linesConfig says where the lines go.
type linesConfig struct {
	Path string `mapstructure:"path"`
}

// newLinesFactory makes exporters that add what they are given to a file, as OTLP in JSON, one line for each request.
func newLinesFactory() exporter.Factory {
	return exporter.NewFactory(
		component.MustNewType("lines"),
		func() component.Config { return &linesConfig{} },
		exporter.WithTraces(newTraces, component.StabilityLevelStable),
		exporter.WithMetrics(newMetrics, component.StabilityLevelStable),
	)
}

func newTraces(ctx context.Context, set exporter.Settings, config component.Config) (exporter.Traces, error) {
	path := config.(*linesConfig).Path
	return exporterhelper.NewTraces(ctx, set, config, func(_ context.Context, traces ptrace.Traces) error {
		line, err := (&ptrace.JSONMarshaler{}).MarshalTraces(traces)
		if err != nil {
			return err
		}
		return add(path, line)
	})
}

func newMetrics(ctx context.Context, set exporter.Settings, config component.Config) (exporter.Metrics, error) {
	path := config.(*linesConfig).Path
	return exporterhelper.NewMetrics(ctx, set, config, func(_ context.Context, metrics pmetric.Metrics) error {
		line, err := (&pmetric.JSONMarshaler{}).MarshalMetrics(metrics)
		if err != nil {
			return err
		}
		return add(path, line)
	})
}

// add writes a line at once, so that concurrent requests do not mix theirs.
func add(path string, line []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.Write(append(line, '\n'))
	return err
}
