"""What a job is: its specification, its folder, its plan, its results and its end. Knows neither queue nor worker."""
