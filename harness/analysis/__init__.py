"""Pure functions: arrays in, records out. No clock, no file, no framework; numpy at most.

Nothing is imported here, so that a reader of `harness.records.metric` does not load numpy.

    latency         latency_stats, interval_methods: from raw iteration times to LatencyStats
    quantiles       order-statistic intervals under autocorrelation
    steady          is_steady: when warm-up is over
    stopping        IntervalTracker: when the median is known well enough
    blocks          a window second by second, beside what disturbed it
    drift           diagnose: autocorrelation, drift, outliers, spread between launches
    compare         compare, benjamini_hochberg: launches of two builds, and a verdict
    metrics         what can be compared, which way is better, what change matters
    fidelity        fidelity: outputs against the reference's
    accuracy        accuracy: class scores against labels
    trend           Spearman, Theil-Sen, block medians
    distributions   normal, Student's t, beta, binomial
"""
